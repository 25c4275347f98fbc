package simnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
)

// Dial connects to "host:port", where host is an address, a loopback address or
// the name of a host.
//
// A host that was killed, or on which nobody listens, refuses after a round trip
// (syscall.ECONNREFUSED). One that is powered off or cut off does not answer; the
// attempt is then repeated every second until ctx ends, for 127 s at most
// (syscall.ETIMEDOUT). The error of an ended
// context is in the *net.OpError that is returned.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := h.dial(ctx, addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: textAddr(addr), Err: err}
	}
	return c, nil
}

func (h *Host) dial(ctx context.Context, addr string) (*conn, error) {
	host, port, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	for start := time.Now(); time.Since(start) < synGiveUp; {
		h.net.mu.Lock()
		to, err := h.resolveLocked(host) // each time: the address may get another host
		if err != nil {
			h.net.mu.Unlock()
			return nil, err
		}
		there, back := h.net.linkLocked(h.m, to), h.net.linkLocked(to, h.m)
		h.net.mu.Unlock()
		d1, ok1 := there.delay()
		d2, ok2 := back.delay()
		retry := synRetry
		if ok1 && ok2 && !there.lose() && !back.lose() {
			if err := h.sleep(ctx, d1+d2); err != nil {
				return nil, err
			}
			if c, err := h.connect(to, port, there, back); c != nil || err != nil {
				return c, err
			}
			retry -= d1 + d2
		}
		if err := h.sleep(ctx, retry); err != nil {
			return nil, err
		}
	}
	return nil, os.NewSyscallError("connect", syscall.ETIMEDOUT)
}

// sleep waits for d, or returns why the dial is over.
func (h *Host) sleep(ctx context.Context, d time.Duration) error {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-h.down:
		}
	}
	select {
	case <-h.down:
		return h.downError()
	default:
		return ctx.Err()
	}
}

// connect is the end of a handshake. It returns neither a connection nor an error
// if there was no answer.
func (h *Host) connect(to *machine, port int, there, back *link) (*conn, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if !h.aliveLocked() {
		return nil, h.downError()
	}
	if there.isCut() || back.isCut() || to.state == off {
		return nil, nil
	}
	l := to.life.listeners[port]
	if to.state == killed || l == nil {
		n.stats.Refused++
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	}
	if len(l.backlog) == cap(l.backlog) {
		return nil, nil
	}
	own, err := h.portLocked()
	if err != nil {
		return nil, fmt.Errorf("pick a port: %w", err)
	}
	ours := &net.TCPAddr{IP: slices.Clone(h.ip), Port: own}
	theirs := &net.TCPAddr{IP: slices.Clone(to.ip), Port: port}
	n.nextID++
	n.stats.Dialed++
	p := newPair(n, n.nextID, h, to.life, ours, theirs, there, back)
	n.pairs[p.id] = p
	l.backlog <- p.b // has room: only we send, under the mutex
	return p.a, nil
}
