package membership

import (
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/peerapi"
)

// knows makes nodes whose program knows a level and that agree to it.
func knows(level uint32) func(*cluster.Meta, *Config) {
	return func(_ *cluster.Meta, c *Config) { c.Levels.Known, c.Levels.Agreed = level, level }
}

func TestTheFeatureLevelRisesWhenAllMembersAgree(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.votersWith(knows(3), "a", "b", "c")
		w.leader()
		time.Sleep(time.Minute)
		if level, raises := w.level.Load(), w.raises.Load(); level != 3 || raises != 1 {
			t.Errorf("at level %d after %d raises, want 3 after one", level, raises)
		}
	})
}

// As high as all members go, and no higher: one of an earlier version, one that an operator
// holds back, one that is away and one without a vote count as well.
func TestTheFeatureLevelWaitsForEveryMember(t *testing.T) {
	for name, test := range map[string]struct {
		change func(id string, c *Config)
		away   bool
		want   uint32
	}{
		"an earlier version": {change: func(id string, c *Config) {
			if id == "c" {
				c.Levels.Known, c.Levels.Agreed = 2, 2
			}
		}, want: 2},
		"held back": {change: func(id string, c *Config) {
			if id == "c" {
				c.Levels.Agreed = 1
			}
		}, want: 1},
		"away": {away: true, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.votersWith(func(m *cluster.Meta, c *Config) {
					knows(3)(m, c)
					if test.change != nil {
						test.change(m.NodeID, c)
					}
				}, "a", "b", "c")
				if test.away {
					w.leader()
					w.other().crash()
				}
				leader := w.leader()
				time.Sleep(5 * time.Minute)
				if level := w.level.Load(); level != test.want {
					t.Errorf("at level %d, want %d", level, test.want)
				}
				if leader.m.cfg.Levels.Agreed > test.want && leader.log.count("feature level not raised") != 1 {
					t.Errorf("told %d times who is behind, want once", leader.log.count("feature level not raised"))
				}
			})
		})
	}
}

// What a member has said before it went away does not count, and people are told of it.
func TestAMemberThatAgreedAndIsAwayHoldsTheFeatureLevel(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.votersWith(knows(3), "a", "b", "c")
		leader := w.leader()
		away := w.other()
		leader.epoch().hear(away.id, &peerapi.SelfResponse{FeatureLevel: 3})
		away.mu.Lock()
		away.mute = true
		away.mu.Unlock()
		time.Sleep(time.Minute)
		if level, raises := w.level.Load(), w.raises.Load(); level != 1 || raises != 0 {
			t.Errorf("at level %d after %d raises, want 1 without any", level, raises)
		}
		if n := leader.log.count("feature level not raised"); n != 1 {
			t.Errorf("told %d times who is away, want once", n)
		}
		away.mu.Lock()
		away.mute = false
		away.mu.Unlock()
		time.Sleep(time.Minute)
		if level := w.level.Load(); level != 3 {
			t.Errorf("at level %d when it is back, want 3", level)
		}
	})
}

func TestANonvoterOfAnEarlierVersionHoldsTheFeatureLevel(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.votersWith(knows(3), "a", "b", "c")
		w.level.Store(2)
		w.leader()
		d := w.fresh("d", func(m *cluster.Meta, c *Config) { m.Nonvoter = true; knows(2)(m, c) })
		if _, err := d.m.FormOrJoin(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.start(nil)
		if role := w.role("d"); role != "nonvoter" {
			t.Fatalf("d is %q", role)
		}
		time.Sleep(time.Minute)
		if level := w.level.Load(); level != 2 {
			t.Errorf("at level %d while a member knows 2", level)
		}
	})
}

func TestANodeThatIsTooOldForTheTableDoesNotJoin(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.votersWith(knows(3), "a", "b", "c")
		w.level.Store(3)
		w.leader()
		d := w.fresh("d", knows(2))
		_, err := d.m.FormOrJoin(t.Context())
		if err == nil || !strings.Contains(err.Error(), "it knows feature level 2 at most") || !strings.Contains(err.Error(), "run Locknode 0.9.0") {
			t.Errorf("FormOrJoin = %v, want what is needed", err)
		}
		if role := w.role("d"); role != "none" {
			t.Errorf("d is %q", role)
		}
	})
}
