package node

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locknode/locknode/internal/disk"
)

func TestAFirstStartMayBeCorrected(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{ID: "typo", DataDir: dir, Listen: "127.0.0.1:0", LogStore: "boltdb"}
	for _, addr := range []*string{&cfg.HTTPAddr, &cfg.RaftAddr, &cfg.GossipAddr} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		*addr = l.Addr().String()
	}
	_, err := Open(t.Context(), cfg)
	if err == nil {
		t.Fatal("Open succeeded on addresses that are in use")
	}
	for _, addr := range []string{cfg.HTTPAddr, cfg.RaftAddr, cfg.GossipAddr} {
		if !strings.Contains(err.Error(), addr) {
			t.Errorf("the error does not name %s: %v", addr, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory has an owner after a start that failed: %v", err)
	}
	corrected := Config{ID: "n1", DataDir: dir, Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true}
	n, err := Open(t.Context(), corrected)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })

	// The directory is checked before the addresses.
	corrected.APIAddr, corrected.RaftAddr = n.APIAddr(), n.RaftAddr()
	if _, err := Open(t.Context(), corrected); !errors.Is(err, disk.ErrInUse) {
		t.Errorf("a second node on the directory: %v, want %v", err, disk.ErrInUse)
	}
}

func TestANodeThatNobodyCanReachSaysSo(t *testing.T) {
	at := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		name, asked, bound string
		cfg                Config
		want               string
	}{
		{"its name is loopback", "db1:7400", "127.0.1.1:7400", Config{}, "db1 is 127.0.1.1 on this machine (/etc/hosts?)"},
		{"its name is loopback in IPv6", "db1:7400", "[::1]:7400", Config{}, "db1 is ::1 on this machine"},
		{"it has seeds elsewhere", "127.0.0.1:7400", "127.0.0.1:7400", Config{Join: []string{"127.0.0.1:7413", "10.0.0.2:7403"}}, "is to join 10.0.0.2:7403, and listens on 127.0.0.1:7400"},
		{"it advertises more", "127.0.0.1:7400", "127.0.0.1:7400", Config{AdvertiseHost: "10.0.0.1"}, "others dial 10.0.0.1, and the node listens on 127.0.0.1:7400"},
		{"it advertises less", "0.0.0.0:7400", "0.0.0.0:7400", Config{AdvertiseHost: "127.0.0.1"}, "others dial 127.0.0.1, which is each machine itself"},
		{"one machine", "127.0.0.1:7400", "127.0.0.1:7400", Config{Join: []string{"127.0.0.1:7413", "localhost:7423", "other:7403"}}, ""},
		{"localhost", "localhost:7400", "127.0.0.1:7400", Config{}, ""},
		{"a name", "db1:7400", "10.0.0.1:7400", Config{Join: []string{"10.0.0.2:7403"}}, ""},
		{"everywhere", "0.0.0.0:7400", "0.0.0.0:7400", Config{AdvertiseHost: "db1"}, ""},
	} {
		if got := c.cfg.loopbackOnly(map[string]net.Addr{c.asked: at(c.bound)}); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestLoopbackIsSaidInTheLog(t *testing.T) {
	log := &officeLog{}
	n, err := Open(t.Context(), Config{
		DataDir: t.TempDir(), Listen: "127.0.0.1:0", Join: []string{"240.0.0.1:7403"}, Fast: true,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	if log.count("the node listens where other machines cannot reach it") != 1 {
		t.Error("want one line in the log about it")
	}
}

func TestEveryFaultOfAConfigIsReportedAtOnce(t *testing.T) {
	err := Config{
		ID: "a\n", Zone: strings.Repeat("z", 65), ClusterName: "a b", AdvertiseHost: "0.0.0.0", Join: []string{"a", "b:0", "c:1"},
		BootstrapExpect: 10,
	}.Validate()
	for _, want := range []string{
		`data dir: is empty`, `id: is "a\n", must be printable text`, `zone: is "zzz`, `cluster name: is "a b"`, `advertise host: is "0.0.0.0", must be a name`,
		`join: is "a", must be host:port`, `join: is "b:0", must be host:port`, `bootstrap expect: is 10`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("faults lack %q: %v", want, err)
		}
	}
	c, err := Config{DataDir: "d", AdvertiseHost: "[fd77::1]", Listen: "[::]:7400", Insecure: true, GossipKey: make([]byte, 32)}.withDefaults()
	if err != nil || c.advertised("[::]:7400") != "[fd77::1]:7400" {
		t.Errorf("advertises %s, %v", c.advertised("[::]:7400"), err)
	}
}

func TestBeyondLoopbackGossipNeedsAKey(t *testing.T) {
	for name, row := range map[string]struct {
		cfg  Config
		want bool // a fault
	}{
		"loopback":                 {Config{}, false},
		"beyond":                   {Config{Listen: "10.0.0.1:7400", Insecure: true}, true},
		"everywhere":               {Config{Listen: "0.0.0.0:7400", AdvertiseHost: "10.0.0.1", Insecure: true}, true},
		"gossip alone":             {Config{GossipAddr: "10.0.0.1:7403", Insecure: true}, true},
		"with a key":               {Config{Listen: "10.0.0.1:7400", Insecure: true, GossipKey: make([]byte, 32)}, false},
		"gossip alone on loopback": {Config{Listen: "10.0.0.1:7400", GossipAddr: "127.0.0.1:7403", Insecure: true}, false},
		"a name, which may be any": {Config{GossipAddr: "node.example:7403", Insecure: true}, true},
		"localhost":                {Config{Listen: "localhost:7400"}, false},
	} {
		row.cfg.DataDir = t.TempDir()
		err := row.cfg.Validate()
		if got := err != nil && strings.Contains(err.Error(), "gossip address: is "); got != row.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
