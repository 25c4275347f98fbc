package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// otherVariables are those that belong to no setting.
var otherVariables = []string{
	"LOCKNODE_CONFIG", "LOCKNODE_ENDPOINTS", "LOCKNODE_CONNECT_TIMEOUT",
	"LOCKNODE_NAME", "LOCKNODE_TOKEN", heldVariable,
}

// linkVariables are what Kubernetes and Docker give every container for a service whose
// name begins with locknode.
var linkVariables = regexp.MustCompile(`^LOCKNODE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?|ENV_[A-Za-z0-9_]+)$`)

// strayVariables looks for variables that are meant for locknode, and that it does not
// know. One that is close to a known one is a fault, as a setting that nobody reads is
// worse than none; others may be somebody's own. One that is empty counts as not set.
func strayVariables(environ []string) (faults []error, unknown []string) {
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

// nearest is the known name that was probably meant, "" if none is near: at most
// three typing errors, and half of the letters right.
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

// environmentFault is what is wrong with the variables of this process.
func (a *app) environmentFault() error {
	faults, _ := strayVariables(a.variables())
	return errors.Join(faults...)
}

// unknownVariables are those that nobody reads.
func (a *app) unknownVariables() []string {
	_, unknown := strayVariables(a.variables())
	return unknown
}

func (a *app) variables() []string {
	if a.environ == nil {
		return nil
	}
	return a.environ()
}
