package main

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locknode/locknode/fsm"
)

func logOf(entries ...[]byte) (out []byte) {
	for i, data := range entries {
		out = binary.BigEndian.AppendUint64(out, uint64(i+1))
		out = binary.BigEndian.AppendUint64(out, 1)
		out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
		out = append(out, data...)
	}
	return out
}

func run(t *testing.T, log []byte, restore uint64) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, log, 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err := replay(path, 1, restore, &out)
	return out.String(), err
}

func TestReplayPrintsWhatTheTableSays(t *testing.T) {
	found := fsm.AppendCommand(fsm.AppendHeader(nil, 1, 5, 0, 1), fsm.Found{Cluster: [16]byte{1}})
	got, err := run(t, logOf(found, []byte("no entry"), nil), 0)
	if err != nil || strings.Count(got, "\n") != 4 || !strings.Contains(got, "\nend 3 ") {
		t.Errorf("replay printed %q, %v", got, err)
	}
	again, err := run(t, logOf(found, []byte("no entry"), nil), 1)
	if err != nil || again != got {
		t.Errorf("with restores it printed %q, %v; want %q", again, err, got)
	}
}

func TestLogThatIsCutOffIsRefused(t *testing.T) {
	log := logOf([]byte("entry"), []byte("entry"))
	for n := range log {
		_, err := run(t, log[:n], 0)
		if whole := n == 0 || n == len(log)/2; (err == nil) != whole {
			t.Errorf("%d of %d bytes: %v", n, len(log), err)
		}
	}
	if _, err := run(t, append(make([]byte, 16), 0xff, 0xff, 0xff, 0xff), 0); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an entry of 4 GiB: %v", err)
	}
}
