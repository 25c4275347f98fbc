package secure

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/locknode/locknode/internal/certs"
)

// Dialer connects to the other members. Its methods are safe for concurrent use.
type Dialer struct {
	Mode Mode // Permissive or Required
	// Config returns the configuration of a connection whose other end has to be a node of
	// this cluster that expect accepts: see [certs.Source.DialPeer].
	Config func(expect func(certs.Identity) error) *tls.Config
	// OnPlain is called with 1 when a member was connected to in plain text, and with -1 when
	// that connection is closed. nil: nobody counts.
	OnPlain func(member, addr string, delta int)
}

// Dial connects to the member that is meant, by means of over, and returns once the member
// has proved who it is.
//
// In permissive mode a member that does not speak TLS is connected to in plain text: then
// nothing has proved who it is. ctx bounds all of that, not the connection afterwards.
func (d *Dialer) Dial(ctx context.Context, addr, member string, over func(ctx context.Context, addr string) (net.Conn, error)) (net.Conn, error) {
	raw, err := over(ctx, addr)
	if err != nil {
		return nil, err
	}
	c, err := Client(ctx, raw, d.Config(func(who certs.Identity) error { return Meant(who, member) }))
	if err == nil {
		return c, nil
	}
	_ = raw.Close()
	if !speaksPlain(err) {
		return nil, fmt.Errorf("TLS with node %q: %w", member, err)
	}
	if d.Mode != Permissive {
		return nil, fmt.Errorf("TLS with node %q: %w: set tls.mode there", member, err)
	}
	if raw, err = over(ctx, addr); err != nil {
		return nil, err
	}
	c = &Conn{wire: &wire{Conn: raw}}
	c.stream = c.wire
	c.begun.Store(true)
	if d.OnPlain != nil {
		d.OnPlain(member, addr, 1)
		c.ends(func() { d.OnPlain(member, addr, -1) })
	}
	return c, nil
}

// Client does the handshake of TLS, as the end that has dialled raw. ctx bounds it.
func Client(ctx context.Context, raw net.Conn, config *tls.Config) (*Conn, error) {
	c := &Conn{wire: &wire{Conn: raw, turns: processTurns, left: handshakeBytes}}
	if err := handshakeOf(ctx, c, tls.Client(c.wire, config)); err != nil {
		return nil, err
	}
	c.begun.Store(true)
	return c, nil
}

// Meant returns why an identity is not that of the node that is meant, or nil.
func Meant(who certs.Identity, member string) error {
	if who.Name != member {
		return fmt.Errorf("the node there is %q by its certificate, not %q", who.Name, member)
	}
	return nil
}

// speaksPlain reports whether a handshake failed because the first bytes of the other end
// are no TLS.
func speaksPlain(err error) bool {
	var notTLS tls.RecordHeaderError
	return errors.As(err, &notTLS) && notTLS.Conn != nil
}
