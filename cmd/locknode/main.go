package main

import (
	"os"
)

func main() {
	if code, hidden := hiddenMain(os.Args); hidden {
		os.Exit(code)
	}
	os.Exit(program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, lookup: os.LookupEnv}.run(os.Args[1:]))
}
