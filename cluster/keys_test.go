package cluster

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// exchanged notes what an exchange of keys is asked for.
type exchanged struct {
	mu       sync.Mutex
	asked    int
	answered []byte // the first bytes that Answer has read
}

func (e *exchanged) exchange(first bool) KeyExchange {
	return KeyExchange{
		AskFirst: first,
		Ask: func(c net.Conn) error {
			e.mu.Lock()
			e.asked++
			e.mu.Unlock()
			if _, err := c.Write([]byte{recordHandshake, 3, 1}); err != nil {
				return err
			}
			got, err := io.ReadAll(c)
			if err == nil && string(got) != "keys" {
				err = errors.New("no keys")
			}
			return err
		},
		Answer: func(c net.Conn) {
			b := make([]byte, 3)
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			e.mu.Lock()
			e.answered = b
			e.mu.Unlock()
			_, _ = io.WriteString(c, "keys")
		},
	}
}

func (e *exchanged) asks() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

// Keys are exchanged on the port of gossip before states are, and every byte of that arrives.
func TestKeysAreExchangedBeforeStates(t *testing.T) {
	var atA, atB exchanged
	key := bytes.Repeat([]byte{1}, 32)
	a := start(t, "a", func(cfg *Config) { cfg.Keys, cfg.KeyExchange, cfg.Label = [][]byte{key}, atA.exchange(true), "named" })
	b := start(t, "b", func(cfg *Config) {
		seeds(a)(cfg)
		cfg.Keys, cfg.KeyExchange, cfg.Label = [][]byte{key}, atB.exchange(true), "named"
	})
	await(t, b, "a", inState(Alive, "a"))
	atA.mu.Lock()
	defer atA.mu.Unlock()
	if atB.asks() == 0 || !slices.Equal(atA.answered, []byte{recordHandshake, 3, 1}) {
		t.Errorf("b has asked %d times, a has read %v", atB.asks(), atA.answered)
	}
}

// Without AskFirst they are exchanged only if the nodes do not understand each other.
func TestKeysAreExchangedIfStatesAreNot(t *testing.T) {
	var e exchanged
	k1, k2 := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	a := start(t, "a", func(cfg *Config) { cfg.Keys, cfg.KeyExchange = [][]byte{k1}, e.exchange(false) })
	b := start(t, "b", func(cfg *Config) { seeds(a)(cfg); cfg.Keys, cfg.KeyExchange = [][]byte{k1}, e.exchange(false) })
	await(t, b, "a", inState(Alive, "a"))
	if n := e.asks(); n != 0 {
		t.Errorf("keys were asked for %d times by nodes with the same key", n)
	}
	other := start(t, "other", func(cfg *Config) { seeds(a)(cfg); cfg.Keys, cfg.KeyExchange = [][]byte{k2}, e.exchange(false) })
	awaitTrue(t, other, "settled", other.Settled)
	if e.asks() == 0 {
		t.Error("keys were not asked for by a node with another key")
	}
}

// A port without TLS says so to itself and closes the connection.
func TestAPortWithoutTLSNamesWhatAsksForKeys(t *testing.T) {
	var log logBuffer
	a := start(t, "a", func(cfg *Config) { cfg.Logger = log.logger() })
	c, err := net.Dial("tcp", a.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{recordHandshake, 3, 1, 0, 200}); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if b, err := io.ReadAll(c); len(b) > 0 {
		t.Errorf("answered %q, %v", b, err)
	}
	awaitTrue(t, a, "it is logged", func() bool { return log.count("it asks for gossip keys in TLS") == 1 })
}

func TestRemovedKeysAreGoneAndTheOthersStay(t *testing.T) {
	keys := make([][]byte, 4)
	for i := range keys {
		keys[i] = bytes.Repeat([]byte{byte(i)}, 32)
	}
	a := start(t, "a", func(cfg *Config) { cfg.Keys = keys })
	for _, want := range [][][]byte{{keys[0], keys[2], keys[3]}, {keys[3], keys[2]}, {keys[3], keys[1], keys[2]}, {keys[1]}} {
		if err := a.SetKeys(want); err != nil {
			t.Fatal(err)
		}
		got := a.keyring.GetKeys()
		if len(got) != len(want) || !bytes.Equal(got[0], want[0]) || slices.ContainsFunc(want, func(w []byte) bool {
			return !slices.ContainsFunc(got, func(g []byte) bool { return bytes.Equal(g, w) })
		}) {
			t.Errorf("the ring has %d keys, the first of %d, want %d, the first of %d", len(got), got[0][0], len(want), want[0][0])
		}
	}
}
