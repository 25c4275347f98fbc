package server

import (
	"container/list"
	"sync/atomic"
	"time"
)

// Places for connections are few, and opening one costs a client nothing. So each
// connection has a rank by what it is used for. Where a limit is reached, the connection of
// the lowest rank makes room for a new one, and of several the one that has had that rank
// longest. So a member also gets a place when strangers have taken all of them: before the
// first call nothing tells a member from a stranger, and a member calls at once.
//
// A connection on which something is held or requested is never closed for a new one.

// rank is of what use a connection is, lowest first.
type rank int

const (
	useless rank = iota // no valid request has come yet
	resting             // nothing is under way: an HTTP keep-alive, a gRPC connection without calls
	silent              // calls or streams are under way, and none has requested anything
	working             // an operation has come on one of them
)

// patienceWith is how long a connection must have had its rank before it makes room: the
// next request of a resting connection may be on its way.
var patienceWith = [working]time.Duration{useless: 0, resting: time.Second, silent: 5 * time.Second}

// use is of what use one connection is. It is guarded by the listener's mu.
type use struct {
	rank     rank
	since    time.Time   // of rank
	requests int         // under way: HTTP requests, calls, streams
	worked   atomic.Bool // the requests under way have requested something; set without mu
	early    *time.Timer // closes the connection if it stays useless
	places   [2]*list.Element
}

// order holds connections by rank, and within a rank by how long they have had it, longest
// first.
type order [working]list.List

// least is the connection that makes room, nil if there is none.
func (o *order) least(now time.Time) *limitedConn {
	for r := range o {
		if first := o[r].Front(); first != nil {
			if c := first.Value.(*limitedConn); now.Sub(c.since) >= patienceWith[r] {
				return c
			}
		}
	}
	return nil
}

// rankLocked gives c a rank.
func (l *limited) rankLocked(c *limitedConn, r rank, now time.Time) {
	ofIP := l.ofIP[c.ip]
	if ofIP == nil {
		ofIP = &order{}
		l.ofIP[c.ip] = ofIP
	}
	for i, o := range [...]*order{&l.all, ofIP} {
		if c.places[i] != nil {
			o[c.rank].Remove(c.places[i])
			c.places[i] = nil
		}
		if r < working {
			c.places[i] = o[r].PushBack(c)
		}
	}
	c.rank, c.since = r, now
}

// begin counts a valid request that is under way. A nil c, a connection that is not known,
// has no rank.
func (c *limitedConn) begin() {
	if c == nil {
		return
	}
	c.early.Stop()
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.requests++; c.requests == 1 {
		c.worked.Store(false)
		l.changeLocked(c, silent)
	}
}

// work gives the connection its highest rank: one of the requests under way has requested
// something.
func (c *limitedConn) work() {
	if c == nil || c.worked.Swap(true) {
		return
	}
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.requests > 0 {
		l.changeLocked(c, working)
	}
}

// end counts a request that is no longer under way.
func (c *limitedConn) end() {
	if c == nil {
		return
	}
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.requests--; c.requests == 0 {
		l.changeLocked(c, resting)
	}
}

// changeLocked is rankLocked for a connection that is still counted.
func (l *limited) changeLocked(c *limitedConn, r rank) {
	if _, there := l.conns[c]; there {
		l.rankLocked(c, r, time.Now())
	}
}

// closeUseless closes a connection on which no valid request has come for too long.
func (c *limitedConn) closeUseless() {
	l := c.listener
	l.mu.Lock()
	idle := c.rank == useless
	l.mu.Unlock()
	if idle {
		_ = c.Close()
	}
}
