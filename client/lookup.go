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
	// lookupLimit bounds one lookup. Meanwhile the known addresses are asked.
	lookupLimit = 5 * time.Second
	// The pause before the next lookup of a name is a quarter of the time for which the
	// client has had no node: names are looked up as soon as the node is lost, and then at
	// growing intervals. It is shortened by up to a half at random.
	leastLookupPause = 250 * time.Millisecond
	mostLookupPause  = 5 * time.Second
	// maxPerName bounds the addresses of one name.
	maxPerName = 16
	// adminLookups is how long a call of an operator waits for lookups under way while
	// an address is known.
	adminLookups = time.Second
)

// The names of endpoints and members are looked up here, and not by grpc. Its resolver
// looks up again no sooner than 30 s after the last time, which is longer than the TTL of a
// session. It makes one endpoint of all addresses of a name and uses the one that
// answers, while the client has to ask each of them who leads.

// lookUp looks up the names that are wanted.
func (r *remote) lookUp(wanted func(*place) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookUpLocked(wanted)
}

// lookUpLocked looks up the names that are wanted, unless that is under way or was done
// a moment ago. It does not wait.
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

// lookedUp adopts the result of a lookup. If it failed, the known addresses stay: the
// nodes may be reachable while the name service is not.
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
	r.changedLocked() // also after a failure: resolved waits for the end of the lookup
}

var errNoAddress = errors.New("no address is known under this name")

// lookUpSoonLocked lets the next search look up all names without a pause.
func (r *remote) lookUpSoonLocked() {
	r.lost = time.Now()
	for _, p := range r.places {
		p.next = time.Time{}
	}
}

// resolved waits until an address is known or ctx ends. While the client has no node, it
// looks up the names again and also waits for that, for adminLookups at most.
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
		news, known, asking := r.addressNews, len(r.addressesLocked()) > 0, false
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

// lookupTrouble returns why no address was found for a name, as dialTrouble does.
func lookupTrouble(host string, err error) trouble {
	if lookup := (*net.DNSError)(nil); !errors.As(err, &lookup) {
		err = &net.DNSError{Err: err.Error(), Name: host}
	}
	return dialTrouble(context.Background(), err)
}

// unresolved returns why the names without addresses have none.
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
