package main

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// known are the versions of Go in which a person has looked at what the edits
// do, and run TestRunsAreIdenticalWithTheOverlay: the SHA-256 of each file that
// is edited, as it was released.
var known = map[string]map[string]string{
	"go1.26.8": {
		"rand.go":     "f0c4935ece88ac3861ebd5060a3507831158bcf5ac47abae5860220c0da970c5",
		"select.go":   "93977178a5c507d2bd0bbd990613fa0c8a1d6d18b974fcbcd6c9edce6bd8b5bf",
		"time.go":     "38c7dde4ad56b211cda6216c67e8f4c1b1f3a3ea544ff25b62fc83126e8a5f5c",
		"proc.go":     "b0ea864c1dd251cd9146644863ae9126ca57761dff05862dc80ab0799925fec6",
		"sema.go":     "451de314f2db754e318c0ab7857ec3b808d604845e6306eed064a57b8b2cd52b",
		"synctest.go": "7c9fe55993868e9b06502906b38cf6d72b763b224d0f0ef605e863b4d39f4272",
	},
}

// check refuses a runtime that is not one of the known ones.
func check(version, source string) error {
	sums, ok := known[version]
	if !ok {
		lines, err := knownLines(version, source)
		if err != nil {
			return err
		}
		return fmt.Errorf("%s is not known; known are %s.\n"+
			"See whether the edits in edits.go still do what they say in %s, add\n%s\nto known.go, and run: go test ./test/detsim",
			version, strings.Join(slices.Sorted(maps.Keys(known)), ", "), source, lines)
	}
	for _, e := range edits {
		got, err := sum(filepath.Join(source, e.file))
		if err != nil {
			return err
		}
		if want := sums[e.file]; got != want {
			return fmt.Errorf("%s: SHA-256 is %s, that of %s is %s: this is not the runtime as it was released",
				filepath.Join(source, e.file), got, version, want)
		}
	}
	return nil
}

// knownLines is the entry of known for a runtime.
func knownLines(version, source string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "\t%q: {\n", version)
	for _, e := range edits {
		s, err := sum(filepath.Join(source, e.file))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\t\t%q: %q,\n", e.file, s)
	}
	b.WriteString("\t},")
	return b.String(), nil
}

func sum(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(b)), nil
}
