from satlight.cli import main

main()
