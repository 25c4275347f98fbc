//go:build unix

package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"
)

// processCommands are the commands that start processes. They need process groups, signals
// and the terminal's foreground as on Unix.
func (a *app) processCommands() []*cobra.Command {
	return []*cobra.Command{a.runCommand(), a.benchCommand(), a.chaosCommand(), a.demoCommand()}
}

// onTerminal reports whether w is a terminal.
func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}
