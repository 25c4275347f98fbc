// Package overlay makes edited copies of source files for the go command's flag
// -overlay, which builds with the copies and leaves the files as they are.
//
// An [Edit] finds its place by a piece of text, the anchor, that must stand in
// the file exactly once: a source that has changed under an edit is an error and
// never a build in which the edit is silently missing.
package overlay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Edit replaces Anchor, which is not empty and occurs in the file exactly once.
type Edit struct {
	Anchor string
	With   string
}

// Apply returns src with all edits made, one after another. src is left alone.
func Apply(src []byte, edits ...Edit) ([]byte, error) {
	out := bytes.Clone(src)
	for _, e := range edits {
		if e.Anchor == "" {
			return nil, fmt.Errorf("edit: the anchor is empty")
		}
		if e.Anchor == e.With {
			return nil, fmt.Errorf("edit at %q: it changes nothing", e.Anchor)
		}
		if n := bytes.Count(out, []byte(e.Anchor)); n != 1 {
			return nil, fmt.Errorf("edit: the anchor is found %d times, want exactly 1:\n%s", n, e.Anchor)
		}
		out = bytes.Replace(out, []byte(e.Anchor), []byte(e.With), 1)
	}
	return out, nil
}

// Set is the edited copies of an overlay. The zero value is empty.
type Set struct {
	copies map[string][]byte // absolute path of the file → what to build instead
}

// Edit reads the file at path and puts its edited copy into the set. Further
// edits of a file start from the copy.
func (s *Set) Edit(path string, edits ...Edit) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	src, ok := s.copies[path]
	if !ok {
		if src, err = os.ReadFile(path); err != nil {
			return err
		}
	}
	edited, err := Apply(src, edits...)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if s.copies == nil {
		s.copies = make(map[string][]byte)
	}
	s.copies[path] = edited
	return nil
}

// Write puts the copies and the file that the go command wants into dir, which
// is made if need be, and returns the path of that file. The same set gives the
// same bytes; go build caches by content, so a second build is quick.
func (s *Set) Write(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	replace := make(map[string]string, len(s.copies))
	for i, path := range slices.Sorted(maps.Keys(s.copies)) {
		to := filepath.Join(dir, fmt.Sprintf("%d_%s", i, filepath.Base(path)))
		if err := os.WriteFile(to, s.copies[path], 0o644); err != nil {
			return "", err
		}
		replace[path] = to
	}
	b, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "  ")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, append(b, '\n'), 0o644)
}
