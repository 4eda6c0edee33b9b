from satlight.cli.main import main

main()
