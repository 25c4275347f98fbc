package fsm

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// filler makes entries that fill a table with one kind of thing.
type filler struct {
	*sharers
	at       Instant
	batch    []Command
	sessions int
}

func (f *filler) add(c Command) {
	if f.batch = append(f.batch, c); len(f.batch) == 1000 {
		f.flush()
	}
}

func (f *filler) flush() Applied {
	f.index++
	a := f.table.Apply(f.index, 1, encode(1, f.at, 0, f.batch...))
	f.batch = f.batch[:0]
	return a
}

func numbered16(kind byte, i int) (id [16]byte) {
	id[0] = kind
	binary.BigEndian.PutUint64(id[8:], uint64(i)*0x9e3779b97f4a7c15+1) // in no order
	return id
}

func (f *filler) session(i int) SessionID { return numbered16(1, i) }

func (f *filler) open(n int, labels ...Label) {
	for i := range n {
		f.add(OpenSession{Session: f.session(i), TTL: 3600 * second, Labels: labels})
	}
	f.sessions = n
	f.flush()
}

func (f *filler) acquire(i int, sequence uint64, a Acquire) {
	a.ID.Session, a.ID.Sequence = f.session(i), sequence
	if a.TTL == 0 {
		a.TTL = 3600 * second
	}
	f.add(a)
}

func manyLabels(n int) (labels []Label) {
	for i := range n {
		labels = append(labels, Label{fmt.Sprint("k", i), strings.Repeat("v", 250)})
	}
	return labels
}

// fillings are what clients can fill a table with.
var fillings = map[string]func(f *filler){
	"sessions": func(f *filler) { f.open(5000) },
	"sessions of owners": func(f *filler) {
		for i := range 5000 {
			f.add(OpenSession{Session: f.session(i), TTL: 3600 * second, Owner: fmt.Sprintf("2001:db8:%x::/64", i)})
		}
		f.flush()
	},
	"sessions with labels": func(f *filler) { f.open(500, manyLabels(31)...) },
	"sessions that left others few": func(f *filler) { // the trees are as empty as they get
		f.open(20_000)
		for i := range 20_000 {
			if i%4 != 0 {
				f.add(EndSession{Session: f.session(i)})
			}
		}
		f.at += 600 * second
		f.flush()
		for range 30 {
			f.flush()
		}
	},
	"ended sessions": func(f *filler) {
		f.open(20_000)
		for i := range 20_000 {
			f.add(EndSession{Session: f.session(i)})
		}
		f.flush()
	},
	"answers": func(f *filler) {
		f.open(10)
		for i := range 5000 {
			f.add(Release{ID: RequestID{Session: f.session(i % 10), Sequence: uint64(i/10 + 1)}, Token: 1 << 40})
		}
		f.flush()
	},
	"answers of refusals, half of them gone": func(f *filler) {
		f.open(30)
		for i := range 30_000 {
			f.add(Renew{ID: RequestID{Session: f.session(i % 30), Sequence: uint64(i/30 + 1)}, TTL: -1})
		}
		for i := range 30 {
			f.add(Release{ID: RequestID{Session: f.session(i), Sequence: 1001, Acked: 499}})
		}
		f.flush()
	},
	"answers, nearly all of them gone": func(f *filler) {
		f.open(30)
		for i := range 60_000 {
			f.add(Release{ID: RequestID{Session: f.session(i % 30), Sequence: uint64(i/30 + 1)}, Token: 1 << 40})
		}
		for i := range 30 {
			f.add(Release{ID: RequestID{Session: f.session(i), Sequence: 2001, Acked: 2000}})
		}
		f.flush()
	},
	"grants, nearly all of them gone": func(f *filler) {
		f.open(40)
		for i := range 40_000 {
			id := RequestID{Session: f.session(i % 40), Sequence: uint64(i/40 + 1), Acked: uint64(i / 40)}
			f.add(Acquire{ID: id, Wants: []Want{wantShared(fmt.Sprint("l", i%40))}})
		}
		for i := range 39_600 {
			f.add(Release{Token: uint64(i + 1), ID: RequestID{Session: f.session(i % 40), Sequence: uint64(i/40 + 2000), Acked: uint64(i/40 + 1999)}})
		}
		f.flush()
	},
	"spans": func(f *filler) {
		f.open(10)
		for i := range 20_000 {
			q := uint64(i/10 + 1)
			f.add(Release{ID: RequestID{Session: f.session(i % 10), Sequence: 4 * q, Answered: [2]Span{{4*q - 4, 4*q - 4}}}})
		}
		f.flush()
	},
	"grants": func(f *filler) {
		f.open(5)
		for i := range 20_000 {
			f.acquire(i%5, uint64(i+1), Acquire{Wants: exclusive(fmt.Sprint(i)), Detached: true})
		}
		f.flush()
	},
	"grants of sessions that left others few": func(f *filler) {
		f.open(10)
		for i := range 20_000 {
			f.acquire(i%10, uint64(i+1), Acquire{Wants: []Want{wantShared(fmt.Sprint("l", i%8))}})
		}
		f.flush()
		for i := range 20_000 {
			if i%10 == 0 || i > 19_900 {
				continue
			}
			f.add(Release{Token: uint64(i + 1), ID: RequestID{Session: f.session(i % 10), Sequence: 1 << 30, Acked: 1 << 29}})
		}
		f.flush()
	},
	"grants with labels and values": func(f *filler) {
		f.open(5)
		for i := range 600 {
			f.acquire(i%5, uint64(i+1), Acquire{Wants: exclusive(fmt.Sprint(i)), Labels: manyLabels(31), Value: make([]byte, 4096)})
		}
		f.flush()
	},
	"grants of many locks with long names": func(f *filler) {
		f.open(5)
		for i := range 100 {
			var wants []Want
			for k := range 64 {
				wants = append(wants, Want{Lock: strings.Repeat("n", 480) + fmt.Sprint(i, "/", k), Mode: Exclusive})
			}
			f.acquire(i%5, uint64(i+1), Acquire{Wants: wants})
		}
		f.flush()
	},
	"waiters for one lock": func(f *filler) {
		f.open(5)
		for i := range 20_000 {
			f.acquire(i%5, uint64(i+1), Acquire{Wants: exclusive("one"), Wait: 3600 * second})
		}
		f.flush()
	},
	"waiters for locks of their own": func(f *filler) {
		f.open(5)
		for i := range 10_000 {
			f.acquire(i%5, uint64(i+1), Acquire{Wants: exclusive(fmt.Sprint(i / 2)), Wait: 3600 * second})
		}
		f.flush()
	},
	"once IDs": func(f *filler) {
		f.open(5)
		for i := range 20_000 {
			a := Acquire{Wants: exclusive("one"), Detached: true}
			a.ID.Once = numbered16(3, i)
			f.acquire(i%5, uint64(2*i+1), a)
			f.add(Release{Token: uint64(i + 1)})
		}
		f.flush()
	},
	"delays": func(f *filler) {
		f.open(5)
		for i := range 10_000 {
			f.acquire(i%5, uint64(i+1), Acquire{Wants: exclusive(fmt.Sprint(i)), Detached: true, TTL: second, Delay: 600 * second})
		}
		f.flush()
		f.at += 2 * second
		for range 12 {
			f.flush()
		}
	},
	"access tokens": func(f *filler) {
		f.open(1)
		for i := range 5000 {
			f.add(PutAccessToken{Accessor: fmt.Sprint("accessor", i*7919%5000), Hash: hash32(i), Name: fmt.Sprint("n", i%100), TTL: 3600 * second})
		}
		f.flush()
	},
	"access tokens with labels, most of them revoked": func(f *filler) {
		f.open(1)
		for i := range 500 {
			f.add(PutAccessToken{Accessor: fmt.Sprint("accessor", i*7919%500), Hash: hash32(i), Name: strings.Repeat("n", 122), MadeBy: strings.Repeat("m", 128), Labels: manyLabels(32)})
		}
		f.flush()
		for i := range 500 {
			if i%4 != 0 {
				f.add(RevokeAccessToken{Accessor: fmt.Sprint("accessor", i)})
			}
		}
		f.flush()
	},
	"policies": func(f *filler) {
		f.open(1)
		for i := range 900 {
			p := Policy{Name: fmt.Sprint("p", i*7919%900), Quota: Quota{Grants: 1}}
			for k := range 16 {
				p.For = append(p.For, fmt.Sprint("token:", i, "/", k))
				p.Rules = append(p.Rules, Rule{Rights: RightRead, Name: "a"})
			}
			f.add(ChangePolicies{Put: []Policy{p}})
		}
		f.flush()
	},
	"policies of many rules, of which one is left of each change": func(f *filler) {
		f.open(1)
		for i := range 90 {
			var c ChangePolicies
			for k := range 10 {
				c.Put = append(c.Put, Policy{Name: fmt.Sprint("p", i, "/", k), For: []string{"*"}, Rules: make([]Rule, 256)})
				for r := range c.Put[k].Rules {
					c.Put[k].Rules[r].Rights = RightRead
				}
			}
			f.add(c)
			c = ChangePolicies{}
			for k := 1; k < 10; k++ {
				c.Remove = append(c.Remove, fmt.Sprint("p", i, "/", k))
			}
			f.add(c)
		}
		f.flush()
	},
	"revocations": func(f *filler) {
		f.open(100)
		for i := range 6400 {
			f.acquire(i%100, uint64(i/100+1), Acquire{Wants: exclusive("one")})
			f.add(ForceRelease{Lock: "one", Reason: strings.Repeat("r", 256), Who: strings.Repeat("w", 256)})
		}
		f.flush()
	},
	"answers that show holders": func(f *filler) {
		f.open(40)
		for i := range 640 {
			f.acquire(0, uint64(i+1), Acquire{Wants: exclusive("one"), Value: make([]byte, 4096), Labels: manyLabels(31)})
			f.add(ForceRelease{ID: RequestID{Session: f.session(i % 40), Sequence: uint64(100_000 + i)}, Lock: "one"})
		}
		f.flush()
	},
}

func hash32(i int) (h [32]byte) {
	id := numbered16(4, i)
	copy(h[:], id[:])
	return h
}

func newFiller(tb testing.TB, limits Limits) *filler {
	f := &filler{sharers: &sharers{bench: &bench{table: New(), term: 1}}}
	f.table.Apply(1, 1, encode(1, 0, 0, raiseTo(Level), Configure{Limits: limits}))
	f.index = 1
	_ = tb
	return f
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The heap that a table takes is never more than what its records cost, and not so much
// less that the limit means nothing.
func TestTableTakesNoMoreThanItCosts(t *testing.T) {
	wide := Limits{
		WaitersPerLock: 1_000_000, Waiters: 1_000_000, GrantsPerSession: 1_000_000, Grants: 10_000_000, Sessions: 1_000_000, OnceRemembered: 1_000_000,
		TableBytes: 1 << 40,
	}
	for what, fill := range fillings {
		t.Run(what, func(t *testing.T) {
			before := heap()
			f := newFiller(t, wide)
			fill(f)
			f.batch, f.T = nil, nil
			taken := heap() - before
			cost := f.table.bytes
			t.Logf("%8d bytes on the heap, cost %8d: %.2f", taken, cost, float64(cost)/float64(taken))
			if taken > cost {
				t.Errorf("takes %d bytes, costs %d", taken, cost)
			}
			if err := f.table.check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A client that fills all that it can gets to half of the limit, the table never beyond it,
// and others still get locks and give them back.
func TestTableIsNeverLargerThanItsLimit(t *testing.T) {
	limits := Limits{
		WaitersPerLock: 1_000_000, Waiters: 1_000_000, GrantsPerSession: 1_000_000, Grants: 10_000_000, Sessions: 1_000_000, OnceRemembered: 1_000_000,
		TableBytes: 3 << 20,
	}
	for what, fill := range fillings {
		t.Run(what, func(t *testing.T) {
			f := newFiller(t, limits)
			f.T = t
			fill(f)
			if got := f.table.bytes; got > limits.TableBytes {
				t.Fatalf("costs %d bytes, the limit is %d", got, limits.TableBytes)
			}
			if err := f.table.check(); err != nil {
				t.Fatal(err)
			}
			if f.table.owners.len > 100 {
				return // there is no share for everybody
			}
			other := SessionID{0xee}
			f.add(OpenSession{Session: other, TTL: 3600 * second, Owner: "10.1.1.1"})
			for q := range uint64(10) {
				f.add(Acquire{ID: RequestID{Session: other, Sequence: q + 1, Acked: q}, Wants: exclusive(fmt.Sprint("other", q))})
			}
			f.add(Acquire{ID: RequestID{Session: other, Sequence: 11, Acked: 10}, Wants: exclusive("other1")})
			f.add(EndSession{Session: other})
			for i, r := range f.flush().Results {
				if r.Code != OK && r.Code != Busy {
					t.Errorf("command %d of another client: %+v", i, r)
				}
			}
		})
	}
}

// What frees is done also where its client has used up all that it may have, and then
// takes nothing more: its oldest answers count as acknowledged.
func TestReleasesNeedNoRoom(t *testing.T) {
	f := newFiller(t, Limits{TableBytes: minTableSize})
	f.T = t
	f.open(100)
	for i := range 100 {
		f.acquire(i, 1, Acquire{Wants: exclusive(fmt.Sprint(i))})
	}
	f.flush()
	held := f.table.grants
	if held == 0 || f.table.sessions.len > 100 {
		t.Fatalf("%d grants in %d sessions", held, f.table.sessions.len)
	}
	full := f.table.bytes
	for q := range uint64(100) {
		for i := range f.table.sessions.len {
			f.add(Release{ID: RequestID{Session: f.session(i), Sequence: q + 2}, Token: q + 1})
		}
	}
	f.flush()
	if f.table.grants != 0 || f.table.bytes > max(full, minTableSize/2) {
		t.Errorf("%d grants are left of %d; costs %d bytes, before it %d", f.table.grants, held, f.table.bytes, full)
	}
	f.one(0, Release{ID: RequestID{Session: f.session(0), Sequence: 2}, Token: 1})
	if r := f.want(f.one(0, Release{ID: RequestID{Session: f.session(0), Sequence: 2}, Token: 1}), StaleRequest); r.Token != 0 {
		t.Errorf("a copy of a release whose answer is forgotten: %+v", r)
	}
	f.reload()
}
