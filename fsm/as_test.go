package fsm

import (
	"fmt"
	"testing"
)

// owned is a table in which the identity bill has a session, two detached grants and one that
// waits, all under once IDs.
type owned struct {
	*bench
	session  SessionID
	granted  Result // in the session
	detached Result
	sequence uint64

	owner string // of the caller who tries something
	own   int    // his session
}

// mineTo is an acquire as its caller would send it.
func (o *owned) mineTo(c Acquire) Acquire {
	c.Owner = o.owner
	return c
}

const bill, shop = "cert:bill", "token:shop"

func newOwned(t *testing.T) *owned {
	o := &owned{bench: newRightsBench(t), session: genSession(0), sequence: 100}
	o.want(o.one(0, accessTokenFor("a1", "shop")), OK)
	o.want(o.one(0, o.as(bill, OpenSession{Session: o.session, TTL: 600 * second, Owner: bill})), OK)
	o.want(o.one(0, o.as(shop, OpenSession{Session: genSession(1), TTL: 600 * second, Owner: shop})), OK)
	o.want(o.one(0, OpenSession{Session: genSession(2), TTL: 600 * second, Owner: "10.0.0.1"}), OK)
	o.granted = o.want(o.one(0, o.as(bill, inSession(0, 1, 0, "s"))), OK)
	o.detached = o.want(o.one(0, o.as(bill, o.ask(1, "d", 0))), OK)
	o.want(o.one(0, o.as(bill, o.ask(2, "d", 60*second))), Queued)
	return o
}

func (o *owned) as(caller string, c Command) As { return As{Caller: caller, Command: c} }

// ask is a detached acquire of bill's, in the session that a node holds for callers without one.
func (o *owned) ask(once byte, lock string, wait int64) Acquire {
	c := detached(once, lock, 600*second, wait)
	c.Owner = bill
	return c
}

// next is a request ID that is new.
func (o *owned) next(session int) RequestID {
	o.sequence++
	return RequestID{Session: genSession(session), Sequence: o.sequence}
}

// strangers are what others may try with what is bill's, and the answers: to another identity,
// to one with force, and to bill himself.
func (o *owned) strangers() map[string]struct {
	command             func() Command
	other, forced, mine Code
} {
	type try = struct {
		command             func() Command
		other, forced, mine Code
	}
	again := func(c Acquire, id RequestID) Acquire { c.ID.Session, c.ID.Sequence = id.Session, id.Sequence; return c }
	return map[string]try{
		"acquires in his session":         {func() Command { return Acquire{ID: o.next(0), Wants: exclusive("x")} }, NotOwner, NotOwner, OK},
		"copies what he acquired":         {func() Command { return inSession(0, 1, 0, "s") }, NotOwner, NotOwner, OK},
		"releases in his session":         {func() Command { return Release{ID: o.next(0), Token: o.granted.Token} }, NotOwner, NotOwner, OK},
		"renews in his session":           {func() Command { return Renew{ID: o.next(0), Token: o.granted.Token, TTL: 9 * second} }, NotOwner, NotOwner, OK},
		"sets a value in his session":     {func() Command { return SetValue{ID: o.next(0), Token: o.granted.Token} }, NotOwner, NotOwner, OK},
		"forces in his session":           {func() Command { return ForceRelease{ID: o.next(0), Lock: "s"} }, NotOwner, NotOwner, OK},
		"resizes in his session":          {func() Command { return Resize{ID: o.next(0), Lock: "s", Limit: 1} }, NotOwner, NotOwner, KindMismatch},
		"cancels in his session":          {func() Command { return Cancel{ID: o.next(0), Target: RequestID{Session: o.session, Sequence: 1}} }, NotOwner, NotOwner, OK},
		"cancels what his session asked":  {func() Command { return Cancel{Target: RequestID{Session: o.session, Sequence: 1}} }, NotOwner, OK, OK},
		"cancels what is yet to come":     {func() Command { return Cancel{Target: RequestID{Session: o.session, Sequence: 7777}} }, NotOwner, OK, OK},
		"opens his session":               {func() Command { return OpenSession{Session: o.session, TTL: 9 * second, Owner: o.owner} }, NotOwner, NotOwner, OK},
		"ends his session":                {func() Command { return EndSession{Session: o.session} }, NotOwner, NotOwner, OK},
		"releases by a guessed token":     {func() Command { return Release{Token: o.detached.Token} }, NotOwner, OK, OK},
		"the same from a session":         {func() Command { return Release{ID: o.next(o.own), Token: o.detached.Token, Lock: "d"} }, NotOwner, OK, OK},
		"loses by a guessed token":        {func() Command { return Release{Token: o.detached.Token, Lost: true} }, NotOwner, OK, OK},
		"renews by a guessed token":       {func() Command { return Renew{Token: o.detached.Token, TTL: 9 * second} }, NotOwner, OK, OK},
		"sets a value by a guessed token": {func() Command { return SetValue{Token: o.detached.Token, Value: []byte("x")} }, NotOwner, OK, OK},
		"cancels what he was granted":     {func() Command { return Cancel{Target: RequestID{Session: host, Sequence: 1001}} }, NotOwner, OK, OK},
		"cancels what waits for him":      {func() Command { return Cancel{Target: RequestID{Session: host, Sequence: 1002}} }, NotOwner, OK, OK},
		"asks by his once ID":             {func() Command { return o.mineTo(again(o.ask(1, "d", 0), o.next(o.own))) }, NotOwner, NotOwner, OK},
		"joins by his once ID":            {func() Command { return o.mineTo(again(o.ask(2, "d", 60*second), o.next(o.own))) }, NotOwner, NotOwner, Queued},
		"acquires in his name":            {func() Command { return o.ask(9, "x", 0) }, NotOwner, NotOwner, OK},
		"opens in his name":               {func() Command { return OpenSession{Session: genSession(9), TTL: 9 * second, Owner: bill} }, NotOwner, NotOwner, OK},
		"releases a session's token":      {func() Command { return Release{Token: o.granted.Token} }, NotHeld, NotHeld, NotHeld},
		"clears the way for himself":      {func() Command { return ForceRelease{ID: o.next(o.own), Lock: "d"} }, OK, OK, OK}, // the node asks for the right
	}
}

// What is an identity's nobody else uses: not its session, not its grants by their tokens, not
// what is known under its once IDs. With force its grants can be ended and changed.
func TestWhatIsAnIdentitysIsForNobodyElse(t *testing.T) {
	for what := range (&owned{}).strangers() {
		for _, who := range []struct {
			caller, owner string
			session       int
			force         bool
		}{
			{shop, shop, 1, false}, {"anonymous", "10.0.0.1", 2, false}, {shop, shop, 1, true}, {bill, bill, 0, false},
		} {
			o := newOwned(t)
			o.owner, o.own = who.owner, who.session
			try := o.strangers()[what]
			want := try.other
			switch {
			case who.caller == bill:
				want = try.mine
			case who.force:
				want = try.forced
			}
			r := o.one(0, As{Caller: who.caller, Force: who.force, Command: try.command()})
			if r.Code != want {
				t.Errorf("%s (force %v) %s: %+v, want %d", who.caller, who.force, what, r, want)
			}
			if want == NotOwner && (r.Field == "" || r.Token != 0 || len(r.Holders) != 0) {
				t.Errorf("%s %s: it is told %+v", who.caller, what, r)
			}
			if want == NotOwner {
				o.unharmed(what)
			}
		}
	}
}

// unharmed fails if bill has lost or got something.
func (o *owned) unharmed(what string) {
	o.Helper()
	if v := o.table.Lock("s"); v.HolderCount != 1 || v.Holders[0].Token != o.granted.Token {
		o.Errorf("%s: the session's lock is %+v", what, v)
	}
	if v := o.table.Lock("d"); v.HolderCount != 1 || v.Holders[0].Token != o.detached.Token || v.Holders[0].Value != nil || v.Waiters != 1 {
		o.Errorf("%s: the detached lock is %+v", what, v)
	}
	if s, ok := o.table.Session(o.session); !ok || s.Answers != 1 {
		o.Errorf("%s: the session is %+v, %v", what, s, ok)
	}
}

// What a session or an address made before there were rights goes on to be used: an owner
// that is no identity keeps nobody out.
func TestOwnerThatIsNoIdentityKeepsNobodyOut(t *testing.T) {
	b := newRightsBench(t)
	for i, owner := range []string{"", "10.0.0.1", "node 1", "tokens", "token:", "cert:"} {
		b.want(b.one(0, OpenSession{Session: genSession(i), TTL: 60 * second, Owner: owner}), OK)
		as := func(c Command) As { return As{Caller: bill, Command: c} }
		b.want(b.one(0, as(inSession(i, 1, 0, fmt.Sprint("s", i)))), OK)
		ask := detached(byte(i+1), fmt.Sprint("d", i), 60*second, 0)
		ask.Owner = owner
		g := b.want(b.one(0, ask), OK)
		b.want(b.one(0, as(Renew{Token: g.Token, TTL: 9 * second})), OK)
		ask.ID.Sequence, ask.Owner = ask.ID.Sequence+500, bill
		if again := b.want(b.one(0, as(ask)), OK); again.Token != g.Token {
			t.Errorf("another try of what %q began: %+v", owner, again)
		}
		b.want(b.one(0, as(Release{Token: g.Token})), OK)
		b.want(b.one(0, as(EndSession{Session: genSession(i)})), OK)
	}
}

// Requests that come as nobody are asked nothing, as before there were rights.
func TestRequestsAsNobodyAreAskedNothing(t *testing.T) {
	o := newOwned(t)
	o.want(o.one(0, Renew{Token: o.detached.Token, TTL: 9 * second}), OK)
	o.want(o.one(0, inSession(0, 50, 0, "x")), OK)
	o.want(o.one(0, Release{Token: o.detached.Token}), OK)
	o.want(o.one(0, EndSession{Session: o.session}), OK)
}

// A caller is somebody, and runs what clients ask for and nothing else.
func TestAsRunsRequestsOnly(t *testing.T) {
	b := newRightsBench(t)
	for _, c := range everyCommand() {
		want := Malformed
		if c.kind().isRequest() {
			want = OK
		}
		r := b.one(0, As{Caller: bill, Command: c})
		if (r.Code == Malformed) != (want == Malformed) {
			t.Errorf("%T: %+v", c, r)
		}
		_, err := DecodeEntry(encode(1, 0, 0, As{Caller: bill, Command: c}))
		if (err != nil) != (want == Malformed) {
			t.Errorf("%T decodes with %v", c, err)
		}
	}
	for _, caller := range []string{"", "\n", string(make([]byte, 129))} {
		if r := b.want(b.one(0, As{Caller: caller, Command: b.grab("x", 9*second)}), Invalid); r.Field != "caller" {
			t.Errorf("caller %q: %+v", caller, r)
		}
	}
	b.want(b.one(0, As{Caller: bill}), Malformed)
}

// A copy of a request is one whoever of the same identity sends it, wrapped or not.
func TestCopyAsSomebodyIsTheSameRequest(t *testing.T) {
	o := newOwned(t)
	r := o.want(o.one(0, inSession(0, 1, 0, "s")), OK)
	again := o.want(o.one(0, As{Caller: bill, Force: true, Command: inSession(0, 1, 0, "s")}), OK)
	if r.Token != o.granted.Token || again.Token != r.Token {
		t.Errorf("copies got %+v and %+v", r, again)
	}
}
