//go:build unix

package main

import "github.com/spf13/cobra"

// processCommands start processes, and need what Unix has to control them:
// groups, signals, the terminal's foreground.
func (a *app) processCommands() []*cobra.Command {
	return []*cobra.Command{a.runCommand(), a.benchCommand(), a.chaosCommand(), a.demoCommand()}
}
