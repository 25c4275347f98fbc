package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// otherVariables are the variables of locknode that belong to no setting.
var otherVariables = []string{
	"LOCKNODE_CONFIG", "LOCKNODE_ENDPOINTS", "LOCKNODE_CONNECT_TIMEOUT",
	"LOCKNODE_TLS_CA", "LOCKNODE_TLS_CERT", "LOCKNODE_TLS_KEY",
	"LOCKNODE_TOKEN", "LOCKNODE_TOKEN_FILE", "LOCKNODE_NAME", "LOCKNODE_FENCING_TOKEN", heldVariable,
}

// linkVariables matches the variables that Kubernetes and Docker set in every container for
// a service whose name begins with locknode.
var linkVariables = regexp.MustCompile(`^LOCKNODE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?|ENV_[A-Za-z0-9_]+)$`)

// checkVariables looks for variables that begin with LOCKNODE_ and that locknode does not
// know. One whose name is close to a known one is a fault: it is probably misspelt, and the
// setting would be ignored. Others may belong to another program, and are returned as
// unknown. An empty variable counts as not set.
func checkVariables(environ []string) (faults []error, unknown []string) {
	known := slices.Clone(otherVariables)
	for _, s := range settings() {
		known = append(known, s.environment())
	}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(strings.ToUpper(name), "LOCKNODE_") || value == "" || slices.Contains(known, name) || linkVariables.MatchString(name) {
			continue
		}
		if meant := nearest(strings.ToUpper(name), known); meant != "" {
			faults = append(faults, &fault{source: name, allowed: fmt.Errorf("unknown variable, did you mean %s?", meant)})
		} else {
			unknown = append(unknown, name)
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	slices.Sort(unknown)
	return faults, unknown
}

// nearest returns the known name that was probably meant: at most three edits away, and at
// most as many as half of its letters. It returns "" if there is none.
func nearest(name string, known []string) string {
	best, distance := "", 4
	for _, k := range known {
		letters := len(strings.TrimPrefix(k, "LOCKNODE_"))
		if d := edits(name, k); d < distance && 2*d <= letters {
			best, distance = k, d
		}
	}
	return best
}

// environmentFault returns the faults in the environment of this process.
func (a *app) environmentFault() error {
	faults, _ := checkVariables(a.variables())
	return errors.Join(faults...)
}

// unknownVariables are the variables of this process that nothing reads.
func (a *app) unknownVariables() []string {
	_, unknown := checkVariables(a.variables())
	return unknown
}

func (a *app) variables() []string {
	if a.environ == nil {
		return nil
	}
	return a.environ()
}
