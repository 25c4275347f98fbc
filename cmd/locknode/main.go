package main

import (
	"os"
)

func main() {
	os.Exit(program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, lookup: os.LookupEnv}.run(os.Args[1:]))
}
