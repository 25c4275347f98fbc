package cluster

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxFailedTries bounds the failed peers that one round looks for.
const maxFailedTries = 8

// splitSeed accepts host:port.
func splitSeed(seed string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(seed)
	if err == nil {
		var n int
		if n, err = strconv.Atoi(port); err == nil && (n < 1 || n > 65535 || host == "") {
			err = fmt.Errorf("out of range")
		}
	}
	if err != nil {
		return "", "", fmt.Errorf("seed: is %q, must be host:port", seed)
	}
	return host, port, nil
}

// joinLoop contacts the seeds until the node is not alone, and after that, at a
// slower pace, the seeds and failed peers that are missing: two halves that
// were joined through different seeds, or were cut apart for so long that
// memberlist forgot the other half, find each other again.
func (c *Cluster) joinLoop() {
	defer c.wg.Done()
	backoff := c.timing.retryMin
	for first := true; ; first = false {
		wasAlone := c.alone()
		conflict, failed := c.joinRound()
		alone := c.alone()
		if first {
			c.setSettled()
		}
		c.tell(first, wasAlone, alone, failed)
		c.tellStrangers()
		wait := c.timing.steady
		if alone || conflict {
			wait = backoff/2 + rand.N(backoff) // half to one and a half
			backoff = min(2*backoff, c.timing.retryMax)
		} else {
			backoff = c.timing.retryMin
		}
		if !c.pause(wait, alone) {
			return
		}
	}
}

// tell logs what a round changed.
func (c *Cluster) tell(first, wasAlone, alone bool, failed failures) {
	switch {
	case wasAlone && !alone:
		c.log.Info("gossip found peers", "peers", c.countAlive())
	case first && alone && len(c.cfg.Seeds) > 0:
		c.log.Info("no seed answered yet; they will be tried again", "seeds", c.cfg.Seeds, "err", failed)
	}
	for _, f := range failed {
		if slices.Contains(lasting, f.why) {
			c.warn.some("no gossip", f.addr+" "+f.why.Error(), "no gossip with this address", "gossip", f.addr, "err", f.why)
		}
	}
}

// failure is an address with which no states were exchanged.
type failure struct {
	addr string
	why  error
}

type failures []failure

// String is for people.
func (f failures) String() string {
	texts := make([]string, len(f))
	for i, f := range f {
		texts[i] = f.addr + ": " + f.why.Error()
	}
	return strings.Join(texts, "; ")
}

// pause waits for the next round: until wait is over, the loop is woken, or
// the last peer is gone. It returns false when the node closes.
func (c *Cluster) pause(wait time.Duration, alone bool) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		changes := c.table.changes()
		if !alone && c.alone() {
			return true
		}
		if alone && !c.alone() {
			c.log.Info("gossip found peers", "peers", c.countAlive())
			alone = false
		}
		select {
		case <-c.stop:
			return false
		case <-timer.C:
			return true
		case <-c.woken:
			// Not at once: what woke it would do so again at each answer.
			timer.Reset(min(wait, c.timing.retryMin))
		case <-changes:
		}
	}
}

// joinRound exchanges state with all targets at the same time, and reports whether another
// address uses this node's ID.
func (c *Cluster) joinRound() (conflict bool, failed failures) {
	c.table.forget(time.Now().Add(-c.timing.forget))
	c.stateMu.Lock()
	before, askAll := c.conflict, c.askAll
	c.conflict, c.askAll = "", false
	c.stateMu.Unlock()

	failed = c.exchange(c.targets(before != "" || askAll))

	c.stateMu.Lock()
	now := c.conflict
	c.stateMu.Unlock()
	if now == "" && before != "" {
		c.table.touch()
	}
	c.tellTaken(cmp.Or(now, before))
	return now != "", failed
}

// tellTaken logs once that another address uses this node's ID, and once that it no longer
// does. A round that does not see the other address means little: peers that keep this
// node's address report the other one by gossip between the rounds.
func (c *Cluster) tellTaken(other string) {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	now := time.Now()
	switch t := &c.taken; {
	case t.last.IsZero():
	case now.Sub(t.last) > c.timing.quiet:
		if t.told {
			c.log.Info("this node's ID is no longer in use elsewhere")
		}
		t.since, t.last, t.told = time.Time{}, time.Time{}, false
	case !t.told && other != "" && now.Sub(t.since) > c.timing.retryMin:
		t.told = true
		c.log.Warn("this node's ID is in use at another address; either that is where it ran until just now, or two processes share one ID",
			"node", c.cfg.NodeID, "gossip", c.addr, "other", other)
	}
}

// exchange exchanges states with all addresses at the same time, and returns those that
// failed. It takes at most timing.dial for the connections and that long again
// for the exchanges.
func (c *Cluster) exchange(addrs []string) failures {
	var wg sync.WaitGroup
	whys := make([]error, len(addrs))
	for i, addr := range addrs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := c.join(addr)
			if err != nil && c.circle.isGiven(addr) && c.circle.vouch(err) {
				_, err = c.ml.Join([]string{addr})
			}
			if err != nil {
				whys[i] = c.gate.dialled.of(addr, err)
				c.log.Debug("gossip join", "gossip", addr, "err", err)
			}
		}()
	}
	wg.Wait()
	var failed failures
	for i, why := range whys {
		if why != nil {
			failed = append(failed, failure{addrs[i], why})
		}
	}
	return failed
}

// targets lists the addresses to contact: all seeds that are not alive peers, some failed
// peers, the last known addresses of members that gossip has not found, and if askAlive the
// alive peers. The alive ones are asked while another address uses this node's ID, because
// they have to forget it, and when peers that were refused would now be accepted.
func (c *Cluster) targets(askAlive bool) []string {
	skip := map[string]bool{c.Addr(): true}
	var members, failed, alive []string
	for _, p := range c.table.list() {
		switch p.State {
		case Alive:
			skip[p.Gossip] = true
			alive = append(alive, p.Gossip)
		case Failed:
			if c.table.isMember(p.NodeID) {
				members = append(members, p.Gossip)
			} else {
				failed = append(failed, p.Gossip)
			}
		}
	}
	var targets []string
	add := func(addrs ...string) {
		for _, a := range addrs {
			if !skip[a] {
				skip[a] = true
				targets = append(targets, a)
			}
		}
	}
	for _, seed := range c.cfg.Seeds {
		add(c.resolveSeed(seed)...)
	}
	for id, addr := range c.cfg.Known {
		if _, heard := c.table.peer(id); !heard && c.table.isMember(id) {
			members = append(members, addr)
		}
	}
	for _, addrs := range [][]string{members, failed} { // members first: the others may be invented
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	}
	lost := append(members, failed...)
	add(lost[:min(len(lost), maxFailedTries)]...)
	if askAlive {
		targets = append(targets, alive...)
	}
	return targets
}

// resolveSeed returns every address of a seed. Names are looked up at each
// try: in many installations the addresses behind a name change.
func (c *Cluster) resolveSeed(seed string) []string {
	host, port, err := splitSeed(seed)
	if err != nil {
		return nil // validated at start
	}
	if net.ParseIP(host) != nil {
		addrs := []string{hostPort(host, port)}
		c.circle.give(seed, addrs)
		return addrs
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.timing.dial)
	defer cancel()
	hosts, err := c.cfg.LookupHost(ctx, host)
	if err != nil {
		c.warn.once("seed "+seed, "seed name cannot be resolved; it will be tried again", "seed", seed, "err", err)
		return nil
	}
	c.warn.forget("seed " + seed)
	addrs := make([]string, 0, len(hosts))
	for _, h := range hosts {
		addrs = append(addrs, hostPort(h, port))
	}
	c.circle.give(seed, addrs)
	return addrs
}

// noteConflict is called by memberlist, with its lock held.
func (c *Cluster) noteConflict(other string) {
	c.stateMu.Lock()
	fresh := c.conflict == ""
	c.conflict = other
	c.taken.last = time.Now()
	if c.taken.since.IsZero() {
		c.taken.since = c.taken.last
	}
	c.stateMu.Unlock()
	if fresh {
		wake(c.woken)
		c.table.touch()
	}
}

// askAgain makes the next round run soon and ask the alive peers, for peers that were
// refused before. memberlist calls it, with its lock held.
func (c *Cluster) askAgain() {
	c.stateMu.Lock()
	c.askAll = true
	c.stateMu.Unlock()
	wake(c.woken)
}

func (c *Cluster) setSettled() {
	c.stateMu.Lock()
	c.settled = true
	c.stateMu.Unlock()
	c.table.touch()
}

func (c *Cluster) alone() bool { return c.countAlive() == 0 }

func (c *Cluster) countAlive() (n int) {
	for _, p := range c.table.list() {
		if p.State == Alive {
			n++
		}
	}
	return n
}
