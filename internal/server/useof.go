package server

import (
	"container/list"
	"sync/atomic"
	"time"
)

// Places for connections are few, and to open one costs nothing. So each connection has a
// rank by what it was of use for, and where a limit is reached the one of the lowest rank,
// and of those the one that has had it longest, makes room for a newcomer. That is also
// what lets a member in when strangers have taken every place: nobody can be told from a
// member before the first call, and the first call follows at once.
//
// What holds or asks for something is never closed for a newcomer.

// rank is of what use a connection is.
type rank int

const (
	useless rank = iota // no valid request has come yet
	resting             // nothing is under way: an HTTP keep-alive, a gRPC connection without calls
	silent              // calls or streams are under way, and none has asked for anything
	working             // an operation came while they were
)

// patienceWith is how long a connection has had its rank at least before it makes room: a
// connection that rests may be asked the next thing just now.
var patienceWith = [working]time.Duration{useless: 0, resting: time.Second, silent: 5 * time.Second}

// use is of what use one connection is. It is guarded by the listener's mu.
type use struct {
	rank     rank
	since    time.Time   // of rank
	requests int         // under way: HTTP requests, calls, streams
	worked   atomic.Bool // the requests under way have asked for something; set without mu
	early    *time.Timer // closes the connection if it stays useless
	places   [2]*list.Element
}

// order holds connections by rank; within one those come first that have had it longest.
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

// begin says that a valid request has come and is under way. A nil conn is not known.
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

// work says that something was asked for by what is under way.
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

// end says that a request is not under way any more.
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
