package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/locknode/locknode/internal/proof/overlay"
)

// mutant is one deliberate bug and the tests that must catch it.
type mutant struct {
	name    string // words with hyphens
	breaks  string // what goes wrong, as a sentence without a full stop
	promise string // the promise of docs/design.md that this breaks
	changes []change
	caught  []catcher // each of them has to fail
}

// change is one edit of one file of the repository.
type change struct {
	file   string // from the root of the repository
	anchor string // text that is in the file exactly once
	with   string
}

// catcher is one test or several.
type catcher struct {
	pkg string // as the go command names it: ./fsm
	run string // for -run
	// args are further arguments of the test, separated by spaces.
	args string
}

func (c catcher) String() string {
	name := strings.TrimSuffix(strings.TrimPrefix(c.run, "^"), "$")
	if _, profile, ok := strings.Cut(c.args, "-profile="); ok {
		name += " " + strings.Fields(profile)[0]
	}
	return strings.TrimPrefix(c.pkg, "./") + " " + name
}

// drawing are the packages with tests of pgregory.net/rapid. Their tests get arguments that
// stop rapid from searching half a minute for the smallest failure, and from writing it
// beside the source.
var drawing = []string{"./cluster", "./fsm"}

// named returns the catcher for one test, by its full name.
func named(pkg, test string) catcher {
	c := catcher{pkg: pkg, run: "^" + test + "$"}
	if slices.Contains(drawing, pkg) {
		c.args = "-rapid.nofailfile -rapid.shrinktime=1s"
	}
	return c
}

// simulated returns the catcher for the simulation with the first seeds of a profile.
func simulated(profile string, seeds int) catcher { return simulatedFrom(1, profile, seeds) }

// simulatedFrom is for a mutant with which the seeds before the given one run for minutes and
// find nothing.
func simulatedFrom(seed int, profile string, seeds int) catcher {
	c := named("./test/simulation", "TestSimulation")
	c.args = fmt.Sprintf("-seed %d -seeds %d -profile=%s -shrink 0", seed, seeds, profile)
	return c
}

// overlay returns the edited copies of the files of a mutant below root.
func (m *mutant) overlay(root string) (*overlay.Set, error) {
	var set overlay.Set
	for _, c := range m.changes {
		if err := set.Edit(filepath.Join(root, c.file), overlay.Edit{Anchor: c.anchor, With: c.with}); err != nil {
			return nil, fmt.Errorf("mutant %s is stale: %w", m.name, err)
		}
	}
	return &set, nil
}

var namePattern = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// check reports what is wrong with a list, before anything is built: bad names, edits whose
// place is gone, tests that do not exist.
func check(root string, list []mutant) error {
	var errs []error
	seen := make(map[string]bool)
	for i := range list {
		m := &list[i]
		switch {
		case !namePattern.MatchString(m.name):
			errs = append(errs, fmt.Errorf("mutant: is %q, must be lower case words with hyphens between them", m.name))
		case seen[m.name]:
			errs = append(errs, fmt.Errorf("mutant %s: the name is used twice", m.name))
		}
		seen[m.name] = true
		if m.breaks == "" || m.promise == "" || len(m.changes) == 0 || len(m.caught) == 0 {
			errs = append(errs, fmt.Errorf("mutant %s: breaks, promise, changes and caught must be set", m.name))
		}
		if _, err := m.overlay(root); err != nil {
			errs = append(errs, err)
		}
		for _, c := range m.caught {
			if err := c.check(root); err != nil {
				errs = append(errs, fmt.Errorf("mutant %s: %w", m.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

var testPattern = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// check looks for the test in the source.
func (c catcher) check(root string) error {
	pattern, err := regexp.Compile(c.run)
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(root, c.pkg, "*_test.go"))
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		for _, m := range testPattern.FindAllSubmatch(b, -1) {
			if pattern.Match(m[1]) {
				return nil
			}
		}
	}
	return fmt.Errorf("package %s has no test %q", c.pkg, c.run)
}
