package node

import "slices"

// authModes and authOpens are the values of [Auth.Mode] and [Auth.Open].
var (
	authModes = []string{"off", "log", "required"}
	authOpens = []string{"metrics", "status", "members", "reflection"}
)

// check reports every fault of the settings of rights.
func (a *Auth) check(bad func(format string, args ...any)) {
	if a.Mode != "" && !slices.Contains(authModes, a.Mode) {
		bad("auth mode: is %q, must be off, log or required", a.Mode)
	}
	for _, open := range a.Open {
		if !slices.Contains(authOpens, open) {
			bad("auth open: is %q, must be metrics, status, members or reflection", open)
		}
	}
}
