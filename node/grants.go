package node

import (
	"encoding/hex"
	"strings"
	"sync"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/audit"
)

// Which node records grants and their ends, so that each has one line in the cluster?
//
// Every node applies every entry, so each could record all: then there would be as many lines
// as nodes. So the leader does it, of the term in which the entry was written. Suppose that it
// is killed before it has written a line. The entry is committed, and the others apply it as
// well. So each of them keeps the records of what it has applied lately, and the one that
// leads next writes those of the last [keptFor]: none is lost as long as the earlier leader
// was not further behind with writing. Most of them the earlier leader has written, too. Such
// a line says "again", and has the same index and part as the other: whoever collects the
// lines of all nodes keeps one of each. Rejected: to have the leader say through the log how
// far it has written, which costs entries for something that happens at a change of leader
// only; and to have each node record what its own clients do, because expiries and what
// operators end are nobody's.

const (
	// keptFor is how much cluster time the records of a node that does not lead reach back.
	keptFor = 10 * time.Second
	// maxKept bounds how many they are.
	maxKept = 16_384
)

// grantLog records what applied entries did to grants. A nil one records nothing.
type grantLog struct {
	log    *audit.Log
	serves func(term uint64) bool // whether this node leads that term

	mu   sync.Mutex // guards what follows
	kept []keptRecord
	head int // the oldest of kept once that is full
}

// keptRecord is a record that another node was to write.
type keptRecord struct {
	audit.Record
	at fsm.Instant
}

func newGrantLog(log *audit.Log, serves func(uint64) bool) *grantLog {
	return &grantLog{log: log, serves: serves}
}

// servesTerm reports whether this node serves as leader of a term.
func (n *Node) servesTerm(term uint64) bool {
	e := n.epoch.Load()
	return e != nil && e.term == term
}

// observe is called on the goroutine that applies entries.
func (g *grantLog) observe(a *fsm.Applied) {
	if g == nil {
		return
	}
	part := 0
	for i := range a.Events {
		r, ok := grantRecord(&a.Events[i])
		if !ok {
			continue
		}
		part++
		r.Index, r.Part = a.Index, part
		g.mu.Lock()
		if leads := g.serves(a.Term); leads {
			g.mu.Unlock()
			g.log.Put(r)
			continue
		}
		g.keepLocked(keptRecord{r, a.Now})
		g.mu.Unlock()
	}
}

func (g *grantLog) keepLocked(k keptRecord) {
	if len(g.kept) < maxKept {
		g.kept = append(g.kept, k)
		return
	}
	g.kept[g.head] = k
	g.head = (g.head + 1) % maxKept
}

// lead is called when this node serves as leader: it writes what an earlier leader may not
// have written.
func (g *grantLog) lead(now fsm.Instant) {
	if g == nil {
		return
	}
	g.mu.Lock()
	kept := append(g.kept[g.head:len(g.kept):len(g.kept)], g.kept[:g.head]...)
	g.kept, g.head = nil, 0
	g.mu.Unlock()
	for i := range kept {
		if now.Sub(kept[i].at) <= int64(keptFor) {
			kept[i].Again = true
			g.log.Put(kept[i].Record)
		}
	}
}

// grantRecord is what an event means for a grant; ok is false if it is about none.
func grantRecord(e *fsm.Event) (r audit.Record, ok bool) {
	r = audit.Record{Event: audit.EventGrantEnd, Token: e.Token, Holder: e.Holder, Reason: e.Reason, Outcome: audit.OutcomeOK}
	how := ""
	switch e.Kind {
	case fsm.EventGranted:
		r.Event = audit.EventGrant
	case fsm.EventReleased:
		how = "released"
	case fsm.EventExpired:
		how = "expired"
	case fsm.EventRevoked:
		how = "revoked"
	default:
		return r, false
	}
	if how != "" {
		r.Notes = []audit.Note{{Key: "how", Value: how}}
		if e.Who != "" {
			r.Notes = append(r.Notes, audit.Note{Key: "by", Value: e.Who})
		}
	}
	r.Who = whoOwns(e.Owner)
	if e.Session != (fsm.SessionID{}) {
		r.Session = hex.EncodeToString(apiv1.SessionHash(e.Session[:]))
	}
	if len(e.Wants) == 1 {
		r.Name = e.Wants[0].Lock
	} else {
		for i := range e.Wants {
			r.Names = append(r.Names, e.Wants[i].Lock)
		}
	}
	return r, true
}

// whoOwns says what the table knows of an owner: an identity, or an address.
func whoOwns(owner string) audit.Who {
	if strings.HasPrefix(owner, "token:") || strings.HasPrefix(owner, "cert:") {
		return audit.Who{Identity: owner}
	}
	return audit.Who{Address: owner}
}
