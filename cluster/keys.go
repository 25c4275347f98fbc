package cluster

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"time"
)

// setKeys makes the ring hold exactly keys, the first one as the key that encrypts. At every moment
// in between the ring decrypts what the first of the old and of the new keys encrypt.
//
// memberlist's RemoveKey moves the keys behind the removed one in a slice that other goroutines
// read without a lock, and moves nothing if it removes the last key. So keys are removed from the
// end, also those that stay, and these are added again.
func (c *Cluster) setKeys(keys [][]byte) error {
	c.keysMu.Lock()
	defer c.keysMu.Unlock()
	fail := func(err error) error { return fmt.Errorf("set gossip keys: %w", err) }
	for _, k := range keys {
		if err := c.keyring.AddKey(k); err != nil {
			return fail(err)
		}
	}
	if err := c.keyring.UseKey(keys[0]); err != nil {
		return fail(err)
	}
	old := slices.Clone(c.keyring.GetKeys())
	unwanted := func(k []byte) bool {
		return !slices.ContainsFunc(keys, func(w []byte) bool { return bytes.Equal(w, k) })
	}
	if !slices.ContainsFunc(old, unwanted) {
		return nil
	}
	for i := len(old) - 1; i > 0; i-- {
		if err := c.keyring.RemoveKey(old[i]); err != nil {
			return fail(err)
		}
	}
	for _, k := range keys[1:] {
		if err := c.keyring.AddKey(k); err != nil {
			return fail(err)
		}
	}
	return nil
}

// KeyExchange has nodes agree on the keys of gossip over connections to the port of gossip, before
// they understand each other's gossip. Both functions use the connection only while they run, and do
// not close it. It has a deadline.
type KeyExchange struct {
	// Ask is called with a connection to another node: before states are exchanged with it if
	// AskFirst is set, and otherwise if that exchange has failed.
	Ask      func(net.Conn) error
	AskFirst bool
	// Answer is called with a connection whose first byte was that of TLS, which is read again.
	Answer func(net.Conn)
}

// recordHandshake is the first byte of a connection in TLS. No message of memberlist begins with it.
const recordHandshake = 0x16

// join exchanges states with the node at an address, and the keys for that if it has to.
func (c *Cluster) join(addr string) error {
	keys := c.exchangeKeys
	if keys.Ask != nil && keys.AskFirst {
		if err := c.askKeys(addr); err != nil {
			return err
		}
	}
	_, err := c.ml.Join([]string{addr})
	if err != nil && keys.Ask != nil && !keys.AskFirst && c.askKeys(addr) == nil {
		_, err = c.ml.Join([]string{addr})
	}
	return err
}

// askKeys agrees with the node at an address on the keys. It returns an error if nothing listens
// there. Whatever else goes wrong is logged once, and states are exchanged all the same: with the
// keys that there are that may succeed.
func (c *Cluster) askKeys(addr string) error {
	conn, err := c.gate.Transport.DialTimeout(addr, c.timing.dial)
	if err != nil {
		c.gate.dialled.note(addr, dialTrouble(err))
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(c.timing.dial)); err != nil {
		return err
	}
	if err := c.exchangeKeys.Ask(conn); err != nil {
		c.warn.some("gossip keys", addr, "no gossip keys were exchanged with this address", "gossip", addr, "err", err)
	}
	return nil
}

// begunConn gives back what was read already.
type begunConn struct {
	net.Conn
	first []byte
}

// Read implements [net.Conn].
func (c *begunConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
