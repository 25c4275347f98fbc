//go:build !unix

package main

import (
	"io"

	"github.com/spf13/cobra"
)

// processCommands are run, bench, chaos and demo, which need process groups, signals and
// the foreground of a terminal as Unix has them: elsewhere there are none.
func (a *app) processCommands() []*cobra.Command { return nil }

func hiddenMain([]string) (code int, hidden bool) { return 0, false }

// onTerminal cannot tell.
func onTerminal(io.Writer) bool { return false }
