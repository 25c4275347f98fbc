// Command faultfs shows a directory through a disk that can be broken on request.
// See `faultfs --help`, and package faultfs for what survives a loss of power.
package main

import (
	"os"

	faultfs "github.com/locknode/locknode/test/fuse"
)

func main() { os.Exit(faultfs.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
