package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestListsNameWhatThereIs(t *testing.T) {
	all := []*system{{name: "locknode"}, {name: "etcd"}, {name: "consul", missing: "nobody wrote it"}}
	picked, skipped, err := pickSystems(all, "all")
	if err != nil || len(picked) != 2 || len(skipped) != 1 || skipped[0] != "consul is skipped: nobody wrote it" {
		t.Errorf("all: %d, %q, %v", len(picked), skipped, err)
	}
	picked, skipped, err = pickSystems(all, "etcd")
	if err != nil || len(picked) != 1 || picked[0].name != "etcd" || len(skipped) != 0 {
		t.Errorf("etcd: %d, %q, %v", len(picked), skipped, err)
	}
	for list, want := range map[string]string{"consul": "nobody wrote it", "etcd,x": `"x"`} {
		if _, _, err := pickSystems(all, list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %s", list, err, want)
		}
	}
	for list, want := range map[string]int{"all": 8, "": 8, "uncontended": 4, "uncontended-16,read": 2} {
		if got, err := pickWorkloads(workloads(), list); err != nil || len(got) != want {
			t.Errorf("pickWorkloads(%q) = %d, %v, want %d", list, len(got), err, want)
		}
	}
	if _, err := pickWorkloads(workloads(), "read,x"); err == nil {
		t.Error("the workload x was taken")
	}
}

func TestWrongFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-duration", "1ms"}, {"-systems", "x"}, {"-workloads", "x"}, {"-x"}, {"x"}} {
		if code := command(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{}); code != 2 {
			t.Errorf("%q: exit code %d, want 2", args, code)
		}
	}
}

// What every system is relied on for. Locknode is always tested; the others with
// TEST_ALL=1, where they are installed: etcd takes minutes to build.
func TestEverySystemLocks(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real clusters")
	}
	for _, s := range systems() {
		t.Run(s.name, func(t *testing.T) {
			if s.name != "locknode" && os.Getenv("TEST_ALL") == "" {
				t.Skip("runs with TEST_ALL=1")
			}
			if s.missing != "" {
				t.Skip(s.missing)
			}
			if s.prepare != nil {
				if err := s.prepare(t.Context(), s, t.TempDir()); err != nil {
					t.Fatal(err)
				}
			}
			c, err := startSafely(t.Context(), s, func() (string, error) { return t.TempDir(), nil })
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := c.close(); err != nil {
					t.Error(err)
				}
			})
			locks(t, s, c)
		})
	}
}

func locks(t *testing.T, s *system, c cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all, err := c.sessions(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	reads := func(want bool) {
		t.Helper()
		if s.lacks["read"] != "" {
			return
		}
		if got, err := all[1].locked(ctx, "a", false); err != nil || got != want {
			t.Errorf("locked = %v, %v, want %v", got, err, want)
		}
	}
	reads(false)
	release, err := all[0].lock(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	reads(true)
	if _, err := all[1].try(ctx, "a"); !errors.Is(err, errHeld) {
		t.Errorf("try of a held lock: %v, want %v", err, errHeld)
	}
	if err := release(ctx); err != nil {
		t.Error(err)
	}
	reads(false)
	if release, err = all[1].try(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := release(ctx); err != nil {
		t.Error(err)
	}
	if err := all[0].hold(ctx, "b"); err != nil {
		t.Error(err)
	}
	if _, err := all[1].try(ctx, "b"); !errors.Is(err, errHeld) {
		t.Errorf("try of a lock that is held for long: %v, want %v", err, errHeld)
	}
	if cpu := cpuOf(c.pids()); len(c.pids()) == 0 || cpu < 0 {
		t.Errorf("CPU of %v is %v", c.pids(), cpu)
	}
}

func TestLocknodeAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real clusters")
	}
	var out, progress bytes.Buffer
	code := command(t.Context(), []string{"-systems", "locknode", "-rounds", "1", "-duration", "300ms", "-warmup", "100ms",
		"-workloads", "uncontended-16,handoff,try,read"}, &out, &progress)
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, progress.String(), out.String())
	}
	for _, want := range []string{"uncontended, 16, cycles/s", "handoff, 16, handoffs/s", "try, 64, tries/s", "read, 64, reads/s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
