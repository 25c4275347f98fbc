package main

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Helpers for the flags of all commands.

// durationFlag is a duration. Its error says what the value must be.
type durationFlag struct{ value *time.Duration }

func (d durationFlag) String() string {
	if d.value == nil {
		return ""
	}
	return d.value.String()
}

func (d durationFlag) Type() string { return "duration" }

func (d durationFlag) Set(text string) error {
	value, err := parseDuration(text)
	if err == nil {
		*d.value = value
	}
	return err
}

// addDuration adds a durationFlag. The help shows its default unless that is 0, which
// means none.
func addDuration(flags *pflag.FlagSet, value *time.Duration, name, short string, def time.Duration, usage string) {
	*value = def
	f := flags.VarPF(durationFlag{value}, name, short, usage)
	if def == 0 {
		f.DefValue = ""
	}
}

// apart refuses a flag that is given together with one of others.
func apart(c *cobra.Command, flag string, others ...string) error {
	if !c.Flags().Changed(flag) {
		return nil
	}
	i := slices.IndexFunc(others, c.Flags().Changed)
	if i < 0 {
		return nil
	}
	return hinted(usageError("--%s and --%s: must not be given together", flag, others[i]), "see `%s --help`", c.CommandPath())
}

// onlyWith refuses flags that have no effect without another one.
func onlyWith(c *cobra.Command, flag string, dependents ...string) error {
	if i := slices.IndexFunc(dependents, c.Flags().Changed); i >= 0 && !c.Flags().Changed(flag) {
		return hinted(usageError("--%s: has no effect without --%s", dependents[i], flag), "see `%s --help`", c.CommandPath())
	}
	return nil
}

// notEmpty refuses a flag with an empty value, such as from a shell variable that is not
// set: it would be taken as not given.
func notEmpty(c *cobra.Command, flags ...string) error {
	for _, name := range flags {
		f := c.Flags().Lookup(name)
		empty := ""
		if f.Value.Type() == "stringSlice" {
			empty = "[]"
		}
		if f.Changed && f.Value.String() == empty {
			return hinted(usageError("--%s: is empty, must have a value", name), "to use the default, leave the flag out")
		}
	}
	return nil
}

// asksForJSON reports whether a command line asks for JSON. It works on one that could not
// be parsed, too.
func asksForJSON(args []string) bool {
	output := ""
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, value, inOne := strings.Cut(arg, "=")
		switch {
		case (name == "--output" || name == "-o") && inOne:
			output = value
		case (arg == "--output" || arg == "-o") && i+1 < len(args):
			output = args[i+1]
		case strings.HasPrefix(arg, "-o") && len(arg) > 2:
			output = arg[2:]
		}
	}
	return output == "json"
}
