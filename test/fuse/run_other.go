//go:build !linux

package faultfs

import (
	"fmt"
	"io"
)

// Run is the program, without its name in args. It returns the exit code.
func Run(args []string, _ io.Reader, _, stderr io.Writer) int {
	if _, code, ok := parse(args, stderr); !ok {
		return code
	}
	_, _ = fmt.Fprintf(stderr, "faultfs: %v: it needs Linux\n", ErrCannotMount)
	return exitCannotMount
}
