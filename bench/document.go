package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// What is between these lines of the document belongs to -write.
const (
	beginMark = "<!-- bench/ -write: begin -->"
	endMark   = "<!-- bench/ -write: end -->"
)

// write puts the table and the plots into the document; the plots are in files in plots/ beside it.
func (r *results) write(document, skipped string) error {
	old, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	plots := filepath.Join(filepath.Dir(document), "plots")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	images, err := r.plots(plots)
	if err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s; %d rounds of %v for each measurement.\n\n", time.Now().Format(time.DateOnly), machine(), r.plan.rounds, r.plan.duration)
	b.WriteString(markdown(r.table()))
	for _, line := range append(r.remarks(), skipped) {
		if line != "" {
			b.WriteString("\n" + line + "\n")
		}
	}
	for _, i := range images {
		fmt.Fprintf(&b, "\n![%s](plots/%s)\n", i.title, i.file)
	}
	changed, err := between(string(old), b.String())
	if err != nil {
		return fmt.Errorf("%s: %w", document, err)
	}
	return os.WriteFile(document, []byte(changed), 0o600) // it exists: its mode is kept
}

// between replaces what is between the marks.
func between(document, content string) (string, error) {
	for _, mark := range []string{beginMark, endMark} {
		if n := strings.Count(document, mark); n != 1 {
			return "", fmt.Errorf("has %d lines %q, must have one", n, mark)
		}
	}
	head, rest, _ := strings.Cut(document, beginMark)
	_, tail, found := strings.Cut(rest, endMark)
	if !found {
		return "", fmt.Errorf("has %q before %q", endMark, beginMark)
	}
	return head + beginMark + "\n\n" + strings.TrimSpace(content) + "\n\n" + endMark + tail, nil
}

// machine is what the figures depend on most.
func machine() string {
	model := runtime.GOARCH
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores (%s), %s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.Version())
}
