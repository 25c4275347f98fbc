package cluster

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// foreign are words of libraries, which tell nobody what to do.
var foreign = []string{"msgType", "messages of type", "closed network connection", "installed keys", "remote state", "label header", "encryption version", "EOF"}

func wantPlain(t *testing.T, log *logBuffer) {
	t.Helper()
	for _, line := range strings.Split(log.text(), "\n") {
		for _, word := range foreign {
			if strings.Contains(line, word) && !strings.Contains(line, "level=DEBUG") {
				t.Errorf("%q: %q is a word of a library", line, word)
			}
		}
	}
}

// TestGossipTroubleIsToldOnBothSides: two nodes that do not come together, on real
// sockets, and what each of them logs.
func TestGossipTroubleIsToldOnBothSides(t *testing.T) {
	k1, k2 := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	for name, c := range map[string]struct {
		there, here  []byte // their keys
		label        string
		theirs, ours error // what each says of the other
	}{
		"only they have a key":    {k1, nil, "", errPlaintext, errEncrypted},
		"only we have a key":      {nil, k1, "", errEncrypted, errHungUp},
		"another key":             {k1, k2, "", errOtherKey, errOtherKey},
		"the same, with a name":   {k1, nil, "prod", errPlaintext, errEncrypted},
		"ours only, with a name":  {nil, k1, "prod", errEncrypted, errHungUp},
		"another key with a name": {k1, k2, "prod", errOtherKey, errOtherKey},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var there, here logBuffer
			a := start(t, "a", func(cfg *Config) { cfg.Keys, cfg.Label, cfg.Logger = keys(c.there), c.label, there.logger() })
			start(t, "b", func(cfg *Config) {
				seeds(a)(cfg)
				cfg.Keys, cfg.Label, cfg.Logger = keys(c.here), c.label, here.logger()
			})
			awaitLines(t, &here, 1, "no gossip with this address")
			awaitLines(t, &here, 2, c.ours.Error()) // one of them is about all seeds
			awaitLines(t, &there, 1, `msg="gossip refused"`)
			awaitLines(t, &there, 1, c.theirs.Error())
			wantPlain(t, &there)
			wantPlain(t, &here)
		})
	}
}

func (b *logBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// awaitLines waits until a text was logged so many times.
func awaitLines(t *testing.T, log *logBuffer, n int, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); log.count(text) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q was logged %d times, want %d; the log is\n%s", text, log.count(text), n, log.text())
		}
	}
}

func keys(k []byte) [][]byte {
	if k == nil {
		return nil
	}
	return [][]byte{k}
}

// TestSeedThatIsNoGossipPortIsToldInPlainWords: what is at the address of a seed.
func TestSeedThatIsNoGossipPortIsToldInPlainWords(t *testing.T) {
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	answering := func(answer string) string {
		l := listen()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, answer)
				_ = conn.Close()
			}
		}()
		return l.Addr().String()
	}
	nobody := listen()
	_ = nobody.Close()
	for name, c := range map[string]struct {
		addr string
		want error
		warn bool
	}{
		"nobody listens":    {nobody.Addr().String(), errRefused, false},
		"a stopped process": {listen().Addr().String(), errSilent, false},
		"who hangs up":      {answering(""), errHungUp, true},
		"HTTP":              {answering("HTTP/1.1 400 Bad Request\r\n\r\n"), errHTTP, true},
		"a Raft port":       {answering("locknode raft 1 - -\n"), errRaft, true},
		"another protocol":  {answering("\xff\xfe"), errNoGossip, true},
	} {
		for _, key := range [][]byte{nil, bytes.Repeat([]byte{1}, 16)} {
			t.Run(name, func(t *testing.T) {
				var log logBuffer
				start(t, "n", func(cfg *Config) { cfg.Seeds, cfg.Keys, cfg.Logger = []string{c.addr}, keys(key), log.logger() })
				awaitLines(t, &log, 1, "no seed answered yet")
				awaitLines(t, &log, 1, c.addr+": "+c.want.Error())
				if c.warn {
					awaitLines(t, &log, 1, "no gossip with this address")
				}
				wantPlain(t, &log)
			})
		}
	}
}

// HTTP at the gossip port is answered with an error, and the address is logged.
func TestHTTPAtTheGossipPortIsAnswered(t *testing.T) {
	var log logBuffer
	n := start(t, "n", func(cfg *Config) { cfg.Logger = log.logger() })
	c := &http.Client{Timeout: 10 * time.Second}
	res, err := c.Get("http://" + n.Addr() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusBadRequest || string(body) != wrongPort {
		t.Errorf("got %s, %q, %v, want 400 and %q", res.Status, body, err, wrongPort)
	}
	awaitLines(t, &log, 1, errHTTP.Error())
	wantPlain(t, &log)
}

func TestTroubleOfDialsIsToldInPlainWords(t *testing.T) {
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	if got := dialTrouble(dial(syscall.ECONNREFUSED)); !errors.Is(got, errRefused) {
		t.Errorf("refused: got %v", got)
	}
	if got := dialTrouble(dial(syscall.ETIMEDOUT)); !errors.Is(got, errNoAnswer) {
		t.Errorf("timed out: got %v", got)
	}
	if got := dialTrouble(dial(syscall.EHOSTUNREACH)); !errors.Is(got, syscall.EHOSTUNREACH) {
		t.Errorf("no route: got %v", got)
	}
}

// Strangers cannot fill the log with causes of their own making.
func TestRefusedMessagesOfAllKindsAreOneCause(t *testing.T) {
	var log logBuffer
	w := newWarner(log.logger())
	for i := range 100 {
		w.refused("10.0.0.9:1", errors.New(strings.Repeat("x", i)))
	}
	if n := log.count("gossip refused"); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
	w.refused("10.0.0.9:1", errEncrypted)
	w.refused("10.0.0.8:1", errEncrypted)
	if n := log.count("gossip refused"); n != 2 {
		t.Errorf("%d lines, want another one for a cause that lasts", n)
	}
}
