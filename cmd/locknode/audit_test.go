package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func opened(t *testing.T, path string, backups int) *rotating {
	t.Helper()
	r, err := openRotating(path, mebibyte, backups, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func written(t *testing.T, r *rotating, text string) {
	t.Helper()
	if n, err := r.Write([]byte(text)); err != nil || n != len(text) {
		t.Fatalf("write: %d bytes, %v", n, err)
	}
}

func TestTheAuditIsSetAsideAtItsSizeAndNoLineIsLost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	if err := os.WriteFile(path, []byte("before\n"), 0o640); err != nil { //nolint:gosec // a group may read it
		t.Fatal(err)
	}
	r := opened(t, path, 0)
	const lines = 3000
	for i := range lines {
		written(t, r, fmt.Sprintf("%06d %s\n", i, strings.Repeat("x", 1000)))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "audit*"))
	if err != nil || len(files) < 3 {
		t.Fatalf("files %v, %v; want three at least of 3 MB with 1 MiB each", files, err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > mebibyte {
			t.Errorf("%s has %d bytes", file, len(data))
		}
		for line := range strings.Lines(string(data)) {
			number, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			seen[number] = true
		}
		if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v %v, want the rights of the first", file, info.Mode(), err)
		}
	}
	if len(seen) != lines+1 {
		t.Errorf("%d lines, want %d", len(seen), lines+1)
	}
}

func TestTheAuditGoesToTheFileThatHasThePathAfterSIGHUP(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	r := opened(t, path, 10)
	written(t, r, "one\n")
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("a new audit: %v %v, want 0600", info.Mode(), err)
	}
	moved := path + ".1"
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	written(t, r, "two\n") // logrotate has not sent the signal yet
	if err := r.reopen(); err != nil {
		t.Fatal(err)
	}
	written(t, r, "three\n")
	for file, want := range map[string]string{moved: "one\ntwo\n", path: "three\n"} {
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s has %q, %v; want %q", file, got, err, want)
		}
	}
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.reopen(); err == nil {
		t.Error("a directory was opened as the audit")
	}
	written(t, r, "four\n")
	if got, err := os.ReadFile(moved); err != nil || string(got) != "three\nfour\n" {
		t.Errorf("after a reopen that failed: %q, %v; want that lines go on to the file before", got, err)
	}
}

func TestWhatIsNoFileIsRefusedAsTheAudit(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing", "audit.jsonl"), os.DevNull} {
		if _, err := openRotating(path, mebibyte, 1, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "audit.file: is") {
			t.Errorf("%s: %v, want an error that names the setting", path, err)
		}
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Errorf("%s is a file now: %v", os.DevNull, err)
	}
}

func TestSettingsOfAnAuditThatGoesNowhereAreAFault(t *testing.T) {
	for _, args := range [][]string{{"--audit.on-error=refuse"}, {"--audit.grants"}} {
		c, _, err := configured(t, append(args, "--data-dir=d"), nil, "")
		if err = errors.Join(err, together(c)); err == nil || !strings.Contains(err.Error(), "audit.file") {
			t.Errorf("%v: %v, want an error that says what is missing", args, err)
		}
		c, _, err = configured(t, append(args, "--data-dir=d", "--audit.stdout"), nil, "")
		if err = errors.Join(err, together(c)); err != nil {
			t.Errorf("%v with standard output: %v", args, err)
		}
	}
}

func TestProfilesLeaveTheCommandLineOut(t *testing.T) {
	for path, want := range map[string]int{
		"/debug/pprof/": http.StatusOK, "/debug/pprof/goroutine?debug=1": http.StatusOK, "/debug/pprof/heap": http.StatusOK,
		"/debug/pprof/cmdline": http.StatusNotFound, "/debug/vars": http.StatusNotFound,
	} {
		w := httptest.NewRecorder()
		profiles().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}
