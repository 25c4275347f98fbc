package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const someKey = "MDEyMzQ1Njc4OWFiY2RlZg=="

// keyFile writes a file with a mode.
func keyFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gossip.key")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGossipKeyIsReadFromAFile(t *testing.T) {
	for _, text := range []string{someKey, someKey + "\n", "\n " + someKey + "\r\n\n"} {
		c, all, err := configured(t, []string{"--gossip-key-file", keyFile(t, text, 0o600)}, nil, "")
		if err != nil || string(c.node.GossipKey) != "0123456789abcdef" {
			t.Fatalf("file with %q: key %q, %v", text, c.node.GossipKey, err)
		}
		var printed bytes.Buffer
		if err := printConfig(&printed, all); err != nil || strings.Contains(printed.String(), someKey) {
			t.Errorf("printed, %v:\n%s", err, &printed)
		}
		if again, _, err := configured(t, nil, nil, printed.String()); err != nil || string(again.node.GossipKey) != "0123456789abcdef" {
			t.Errorf("read again: key %q, %v", again.node.GossipKey, err)
		}
	}
	for path, want := range map[string]string{
		"/does/not/exist":                             "no such file",
		t.TempDir():                                   "must be a regular file",
		os.DevNull:                                    "must be a regular file",
		keyFile(t, "short", 0o600):                    "its content must be 16, 24 or 32 bytes in base64",
		keyFile(t, "", 0o600):                         "its content must be",
		keyFile(t, someKey+" "+someKey, 0o600):        "its content must be",
		keyFile(t, strings.Repeat("A", 1<<20), 0o600): "its content must be",
	} {
		_, _, err := configured(t, []string{"--gossip-key-file", path}, nil, "")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "gossip_key_file") || strings.Contains(err.Error(), someKey) {
			t.Errorf("%s: %v, want an error with %q and without the key", path, err, want)
		}
	}
	c, _, err := configured(t, []string{"--gossip-key-file", keyFile(t, someKey, 0o600)}, map[string]string{"LOCKNODE_GOSSIP_KEY": someKey}, "")
	if err == nil {
		err = together(c)
	}
	if err == nil || !strings.Contains(err.Error(), "are both set") {
		t.Errorf("two keys: %v", err)
	}
}

func TestSecretsAreNotTakenFromTheCommandLine(t *testing.T) {
	_, all, err := configured(t, []string{"--gossip-key", someKey}, nil, "")
	if err == nil || strings.Contains(err.Error(), someKey) || !strings.Contains(err.Error(), "--gossip-key-file") || !strings.Contains(err.Error(), "LOCKNODE_GOSSIP_KEY") {
		t.Errorf("got %v, want an error with the two other ways and without the key", err)
	}
	var printed bytes.Buffer
	if err := printConfig(&printed, all); err != nil || strings.Contains(printed.String(), someKey) {
		t.Errorf("printed, %v:\n%s", err, &printed)
	}
	for _, s := range settings() {
		if strings.Contains(s.key, "key") && !strings.HasSuffix(s.key, "_file") && !s.secret {
			t.Errorf("%s looks like a secret and is not treated as one", s.key)
		}
	}
}

// A printed configuration has a comment for a secret that is set: otherwise a node started
// with it would run without the secret, and nobody would notice.
func TestPrintedConfigurationSaysThatASecretIsMissing(t *testing.T) {
	_, all, err := configured(t, nil, map[string]string{"LOCKNODE_GOSSIP_KEY": someKey}, "")
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := printConfig(&printed, all); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(printed.String(), "# gossip_key: set, and not shown") || strings.Contains(printed.String(), "\ngossip_key:") {
		t.Errorf("printed:\n%s", &printed)
	}
	if _, _, err := configured(t, nil, nil, printed.String()); err != nil {
		t.Errorf("read again: %v", err)
	}
}

func TestOpenFilesWithTheKeyAreTold(t *testing.T) {
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true} {
		for _, args := range [][]string{
			{"--gossip-key-file", keyFile(t, someKey, mode)},
			{"--config", keyFile(t, fmt.Sprintf("gossip_key: %q\n", someKey), mode)},
		} {
			_, all, err := configured(t, args, nil, "")
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			warnOfOpenKey(newLogger(&log, slog.LevelInfo, "text"), all)
			if got := strings.Contains(log.String(), "can be read by every user") && strings.Contains(log.String(), args[1]); got != want {
				t.Errorf("%v with mode %v: logged %q", args[0], mode, log.String())
			}
			if strings.Contains(log.String(), someKey) {
				t.Errorf("logged: %s", log.String())
			}
		}
	}
	_, all, err := configured(t, []string{"--config", keyFile(t, "zone: a\n", 0o644)}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	warnOfOpenKey(newLogger(&log, slog.LevelInfo, "text"), all)
	if log.Len() > 0 {
		t.Errorf("a file without a key: logged %q", log.String())
	}
}
