//go:build !unix

package main

import (
	"io"

	"github.com/spf13/cobra"
)

// processCommands are run, bench, chaos and demo. They need process groups, signals and
// the foreground of a terminal as on Unix, so other systems do not have these commands.
func (a *app) processCommands() []*cobra.Command { return nil }

func hiddenMain([]string) (code int, hidden bool) { return 0, false }

// onTerminal is always false: this system is not asked.
func onTerminal(io.Writer) bool { return false }
