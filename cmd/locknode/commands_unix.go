//go:build unix

package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"
)

// processCommands start processes, and need what Unix has to control them:
// groups, signals, the terminal's foreground.
func (a *app) processCommands() []*cobra.Command {
	return []*cobra.Command{a.runCommand(), a.benchCommand(), a.chaosCommand(), a.demoCommand()}
}

// onTerminal reports whether somebody looks at what is written there.
func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}
