package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/locknode/locknode/client"
)

// evil is text that a stranger puts into every field that it can set. It must not move the
// cursor, or start a line that looks like a message of locknode.
const evil = "\x1b[2J\u202eevil\nlocknode: all is well\u009b31m\r\u2066"

// checkShown checks that evil is shown, that all characters are printable, and that evil
// starts no line.
func checkShown(t *testing.T, what, shown string) {
	t.Helper()
	if !strings.Contains(shown, "evil") {
		t.Errorf("%s: %q does not show the text", what, shown)
	}
	for _, line := range strings.Split(shown, "\n") {
		if strings.HasPrefix(line, "locknode: all") || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: the line %q is shown", what, line)
		}
	}
}

func TestTextOfStrangersIsShownWithoutHarm(t *testing.T) {
	status := client.Status{NodeID: evil, State: evil, NotReadyReason: evil, LeaderID: evil, Version: evil, HTTPAddress: evil}
	members := []client.Member{{ID: evil, Role: evil, Health: evil, APIAddress: evil, HTTPAddress: evil, RaftAddress: evil, Version: evil, Zone: evil}}
	info := client.LockInfo{Name: evil, HolderCount: 1, Holders: []client.HolderInfo{{
		Holder: evil, Token: 1, Value: []byte(evil), Labels: map[string]string{evil: evil}, Since: time.Now(),
	}}}
	for what, show := range map[string]func(a *app) error{
		"members": func(a *app) error { return a.printMembers(members) },
		"status":  func(a *app) error { return a.printStatus([]nodeStatus{{id: evil, address: evil, status: status}}) },
		"silence": func(a *app) error {
			return a.printStatus([]nodeStatus{{id: evil, address: evil, err: errors.New(evil)}})
		},
		"ls":           func(a *app) error { return a.printLocks([]client.LockInfo{info}, evil, "") },
		"get":          func(a *app) error { return a.printf("%s", lockText(info)) },
		"grant":        func(a *app) error { return a.printGrant("acquired", nil, evil, 1, time.Second) },
		"any":          func(a *app) error { return a.printf("%s", strings.ReplaceAll(evil, "\n", "")) },
		"members JSON": func(a *app) error { return a.printJSON(membersDocument(members)) },
		"status JSON":  func(a *app) error { return a.printJSON(statusesJSON([]nodeStatus{{address: evil, status: status}})) },
		"get JSON":     func(a *app) error { return a.printJSON(lockDocument(info)) },
		"loss": func(a *app) error {
			a.report(&client.LostError{Lock: "a", Token: 1, Reason: client.LostForced, Who: evil, Why: evil})
			return nil
		},
		"configuration": func(a *app) error {
			name := &setting{key: "zone", kind: "string"}
			return a.printSettings([]resolved{{name, origin{values: []string{evil}, source: evil}}})
		},
		"hint":       func(a *app) error { a.report(hinted(errors.New(evil), "%s", evil)); return nil },
		"error JSON": func(a *app) error { a.json = true; a.report(hinted(errors.New(evil), "%s", evil)); return nil },
		"log": func(a *app) error {
			newLogger(a.stderr, slog.LevelInfo, "text").Info("x", "id", evil, "err", errors.New(evil))
			return nil
		},
		"log JSON": func(a *app) error {
			newLogger(a.stderr, slog.LevelInfo, "json").Info("x", "id", evil, "err", errors.New(evil))
			return nil
		},
	} {
		var out bytes.Buffer
		a := &app{program: program{stdout: &out, stderr: &out}}
		if err := show(a); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		checkShown(t, what, out.String())
		if strings.HasSuffix(what, "JSON") && !json.Valid(out.Bytes()) {
			t.Errorf("%s: %s is no JSON", what, out.String())
		}
	}
}

// Errors and help repeat the arguments, which may be pasted from elsewhere.
func TestArgumentsAreRepeatedWithoutHarm(t *testing.T) {
	for _, args := range [][]string{
		{evil}, {"acquire", evil, "--ttl", evil}, {"acquire", "--" + evil}, {"get", evil},
		{"status", "--endpoints", evil}, {"serve", "--zone", evil}, {"serve", "--" + evil}, {"serve", "--config", evil}, {"release", "a", evil},
		{"acquire", "a", "-o", evil}, {"run", "a", "--", evil + "/none"},
	} {
		var out bytes.Buffer
		p := program{stdout: &out, stderr: &out, lookup: func(v string) (string, bool) { return "1ms", v == "LOCKNODE_CONNECT_TIMEOUT" }}
		if code := p.run(args); code == 0 {
			t.Errorf("%q: exit code 0", args)
		}
		checkShown(t, fmt.Sprintf("%q", args), out.String())
	}
}
