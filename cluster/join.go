package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
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
		return "", "", fmt.Errorf("seed %q: host:port is needed", seed)
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
		conflict := c.joinRound()
		alone := c.alone()
		if first {
			c.setSettled()
		}
		c.tell(first, wasAlone, alone)
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
func (c *Cluster) tell(first, wasAlone, alone bool) {
	switch {
	case wasAlone && !alone:
		c.log.Info("gossip found peers", "peers", c.countAlive())
	case first && alone && len(c.cfg.Seeds) > 0:
		c.log.Info("no seed answered yet; they will be tried again", "seeds", c.cfg.Seeds)
	}
}

// pause waits for the next round: until wait is over, someone asks for it, or
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
		case <-c.kick:
			// Not at once: whoever kicks would do so again at each answer.
			timer.Reset(min(wait, c.timing.retryMin))
		case <-changes:
		}
	}
}

// joinRound exchanges state with everyone worth asking, at the same time, and
// reports whether our name was found to be taken by another address.
func (c *Cluster) joinRound() (conflict bool) {
	c.stateMu.Lock()
	before := c.conflict
	c.conflict = ""
	c.stateMu.Unlock()

	c.exchange(c.targets(before != ""))

	c.stateMu.Lock()
	now := c.conflict
	c.stateMu.Unlock()
	switch {
	case now != "" && before != "":
		c.warn.once("own name", "this node's ID is in use at another address; either that is where it ran until just now, or two processes share one ID",
			"node", c.cfg.NodeID, "gossip", c.addr, "other", now)
	case now == "" && before != "":
		c.warn.forget("own name")
		c.log.Info("this node's ID is no longer in use elsewhere", "other", before)
		c.table.touch()
	}
	return now != ""
}

// exchange swaps states with every address, at the same time. It takes at most
// timing.dial for the connections and that long again for the exchanges.
func (c *Cluster) exchange(addrs []string) {
	var wg sync.WaitGroup
	for _, addr := range addrs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := c.ml.Join([]string{addr}); err != nil {
				c.log.Debug("gossip join", "gossip", addr, "err", err)
			}
		}()
	}
	wg.Wait()
}

// targets lists the addresses to contact: all seeds that are not alive peers,
// and some failed peers. While our name is in conflict the alive peers are
// asked, too: they are the ones who must let the other address go.
func (c *Cluster) targets(conflict bool) []string {
	skip := map[string]bool{c.addr: true}
	var failed, alive []string
	for _, p := range c.table.list() {
		switch p.State {
		case Alive:
			skip[p.Gossip] = true
			alive = append(alive, p.Gossip)
		case Failed:
			failed = append(failed, p.Gossip)
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
	rand.Shuffle(len(failed), func(i, j int) { failed[i], failed[j] = failed[j], failed[i] })
	add(failed[:min(len(failed), maxFailedTries)]...)
	if conflict {
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
	if ip := net.ParseIP(host); ip != nil {
		return []string{net.JoinHostPort(ip.String(), port)}
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
		addrs = append(addrs, net.JoinHostPort(h, port))
	}
	return addrs
}

// noteConflict is called by memberlist, with its lock held.
func (c *Cluster) noteConflict(other string) {
	c.stateMu.Lock()
	fresh := c.conflict == ""
	c.conflict = other
	c.stateMu.Unlock()
	if fresh {
		signal(c.kick)
		c.table.touch()
	}
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
