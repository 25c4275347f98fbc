package fsm

import "fmt"

// A later version of this program may know commands that this one does not. All nodes must
// make the same of an entry, so such a command may be written only once all members of the
// cluster know it. The feature level says when that is: every version knows all commands up
// to a level, every node tells the leader which one, and the leader raises the level of the
// table with a [RaiseLevel] once all members know the next one. From then on the commands
// of that level may be written, and a program that does not know it refuses the table with a
// [LevelError]. A level never falls again.

// Level is the feature level of this program: the highest that it can apply.
const Level = 2

// levelOfRights is the level from which on the table knows access tokens, policies and callers.
const levelOfRights = 2

// levelVersions are the versions of this program that were the first ones with each level,
// from level 1 on.
var levelVersions = [Level]string{"0.1.0", "0.1.0"}

// LevelVersion returns the first version of Locknode that knows a level, for people; it is
// empty for a level that this program does not know.
func LevelVersion(level uint32) string {
	if level < 1 || level > Level {
		return ""
	}
	return levelVersions[level-1]
}

// laterKinds are the levels of the kinds of command that are not of level 1. Such a kind is
// unknown to the table until it has come to that level, also for nodes that know it.
var laterKinds = [256]uint8{
	KindPutAccessToken:    levelOfRights,
	KindRevokeAccessToken: levelOfRights,
	KindChangePolicies:    levelOfRights,
	KindAs:                levelOfRights,
	KindConfigureRights:   levelOfRights,
}

func (k Kind) level() uint32 { return max(1, uint32(laterKinds[k])) }

// LevelOf returns the feature level from which on a command may be written.
func LevelOf(c Command) uint32 { return c.kind().level() }

// RaiseLevel raises the feature level of the table; it changes nothing if the level is as
// high already. Version is the first version of Locknode that knows the level, for the
// messages of nodes that do not.
type RaiseLevel struct {
	Level   uint32
	Version string
}

func (RaiseLevel) kind() Kind { return KindRaiseLevel }

func (c RaiseLevel) encode(e *encoder) {
	e.uint(uint64(c.Level))
	e.string(c.Version)
}

func (c *RaiseLevel) decode(d *decoder) { *c = RaiseLevel{Level: d.uint32(), Version: d.string()} }

// maxVersion bounds what a RaiseLevel says of itself.
const maxVersion = 64

func (t *Table) raiseLevel(c *RaiseLevel) Result {
	if !fits(c.Version, maxVersion) {
		return t.refuse(Invalid, badVersion, maxVersion)
	}
	if c.Level > t.level {
		t.level, t.version = c.Level, c.Version
	}
	return Result{}
}

// Level returns the feature level that the table has come to, and the first version of
// Locknode that knows it.
func (t *Table) Level() (level uint32, version string) { return t.level, t.version }

// LevelError says that a table has come to a feature level that this program does not know.
// The program must not run on it; the data are as they were.
type LevelError struct {
	Level   uint32 // of the table
	Version string // the first version of Locknode that knows it
}

func (e *LevelError) Error() string {
	return fmt.Sprintf("the lock table is at feature level %d and this version of Locknode knows %d at most: "+
		"run Locknode %s or a later version on this node; its data are as they were", e.Level, Level, e.Version)
}

// KnownLevel returns a [LevelError] if the table is at a level that this program does not
// know, after which it must not be used.
func (t *Table) KnownLevel() error {
	if t.level > Level {
		return &LevelError{Level: t.level, Version: t.version}
	}
	return nil
}
