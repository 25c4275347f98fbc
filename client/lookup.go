package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

const (
	// lookupLimit bounds one lookup. Meanwhile the addresses that are known are asked.
	lookupLimit = 5 * time.Second
	// The pause before the next lookup of a name is a quarter of the time that there
	// has been no node to use: names are looked up at once when it is lost, and then
	// ever more seldom. It is shortened by up to a half at random.
	leastLookupPause = 250 * time.Millisecond
	mostLookupPause  = 5 * time.Second
	// maxPerName bounds the addresses behind one name.
	maxPerName = 16
	// adminLookups is how long an administrative call waits for lookups under way while
	// there is an address already.
	adminLookups = time.Second
)

// The names of endpoints and members are looked up here, and not by grpc. Its resolver
// looks up again no sooner than 30 s after the last time, which is longer than a session
// lives. It makes one endpoint of all addresses behind a name and uses whichever
// answers, where the client wants to ask each of them who leads.

// lookUp looks up the names for which wanted says so.
func (r *remote) lookUp(wanted func(*place) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookUpLocked(wanted)
}

// lookUpLocked looks up the names for which wanted says so, unless that is under way or
// was done a moment ago.
func (r *remote) lookUpLocked(wanted func(*place) bool) {
	now := time.Now()
	if r.lost.IsZero() {
		r.lost = now
	}
	for _, p := range r.places {
		if p.literal || p.asking || r.closed || now.Before(p.next) || !wanted(p) {
			continue
		}
		p.asking = true
		r.wg.Go(func() {
			ctx, cancel := context.WithTimeout(r.ctx, lookupLimit)
			defer cancel()
			hosts, err := r.resolve(ctx, p.host)
			if err != nil {
				err = &unreachable{apiv1.CodeUnavailable, lookupTrouble(p.host, err), err}
			}
			r.lookedUp(p, hosts, err)
		})
	}
}

// looksUp reports whether a lookup is under way.
func (r *remote) looksUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.places {
		if p.asking {
			return true
		}
	}
	return false
}

// lookedUp takes in what a lookup has found. When it found nothing, the addresses that
// were known stay: a name service that is down is no reason to forget the nodes.
func (r *remote) lookedUp(p *place, hosts []string, err error) {
	var addrs []string
	for _, host := range hosts {
		ip, err := netip.ParseAddr(host)
		if err != nil || !isOneHost(ip) || len(addrs) == maxPerName {
			continue
		}
		if a := net.JoinHostPort(ip.String(), p.port); !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	slices.Sort(addrs)
	if err == nil && len(addrs) == 0 {
		err = errNoAddress
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	p.asking = false
	pause := min(max(now.Sub(r.lost)/4, leastLookupPause), mostLookupPause)
	p.next = now.Add(pause/2 + rand.N(pause/2))
	if p.err = err; err == nil && !slices.Equal(addrs, p.addrs) {
		p.addrs = addrs
		r.log.Debug("name looked up", "endpoint", p.text, "addresses", addrs)
	}
	r.changedLocked() // also of a failure: somebody may wait for the end of the lookup
}

var errNoAddress = errors.New("no address is known under this name")

// lookUpSoonLocked makes the next search look up all names at once.
func (r *remote) lookUpSoonLocked() {
	r.lost = time.Now()
	for _, p := range r.places {
		p.next = time.Time{}
	}
}

// resolved waits until there is an address to ask. While there is no node to use, it
// looks up the names again and waits a moment for that, too.
func (r *remote) resolved(ctx context.Context) {
	idle := r.link.Load() == nil
	r.mu.Lock()
	r.lookUpLocked(func(p *place) bool { return idle || len(p.addrs) == 0 })
	r.mu.Unlock()
	enough := time.NewTimer(adminLookups)
	defer enough.Stop()
	patient := true
	for {
		r.mu.Lock()
		news, known, asking := r.news, len(r.addressesLocked()) > 0, false
		for _, p := range r.places {
			asking = asking || p.asking && (idle || len(p.addrs) == 0)
		}
		r.mu.Unlock()
		if !asking || known && !patient {
			return
		}
		select {
		case <-news:
		case <-enough.C:
			patient = false
		case <-ctx.Done():
			return
		case <-r.ctx.Done():
			return
		}
	}
}

// lookupTrouble says why nothing was found under a name, in the words of dialTrouble.
func lookupTrouble(host string, err error) trouble {
	if lookup := (*net.DNSError)(nil); !errors.As(err, &lookup) {
		err = &net.DNSError{Err: err.Error(), Name: host}
	}
	return dialTrouble(context.Background(), err)
}

// unresolved says why there is no address behind the names that have none.
func (r *remote) unresolved() (errs []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range slices.Concat(r.endpoints, r.book.addresses()) {
		switch p := r.places[text]; {
		case len(p.addrs) > 0:
		case p.err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", text, p.err))
		default:
			errs = append(errs, fmt.Errorf("%s: the name has not been looked up yet", text))
		}
	}
	return errs
}
