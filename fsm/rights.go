package fsm

// Who may do what is part of the replicated state: access tokens, with which callers prove
// who they are, and policies, which say what they may do. The table keeps both and decides
// nothing by them: the nodes do, where a request enters. What the table itself guards is
// what belongs to whom; see as.go.

// Right is a set of rights.
type Right uint8

// The rights. They are written to disk: never renumbered or reused.
const (
	RightRead  Right = 1 // to see locks
	RightLock  Right = 2 // to acquire and renew them
	RightForce Right = 4 // to end what others hold
	RightAdmin Right = 8 // everything about the cluster; it has no names

	allRights = RightRead | RightLock | RightForce | RightAdmin
)

// Rule gives rights, or takes them away, for some names.
type Rule struct {
	Deny   bool
	Rights Right  // at least one
	Name   string // what the names begin with, or with Exact a whole name; may contain ${identity}
	Exact  bool
}

// Quota bounds what an identity may have. A field that is 0 bounds nothing. The table
// enforces the first four (quotas.go), the nodes the others.
type Quota struct {
	Sessions     int
	Grants       int // and waiting requests
	Waiters      int
	Bytes        int64 // of the table's memory, as [Limits.TableBytes] counts it
	OpsPerSecond int
	Connections  int
	Streams      int
	UnsentBytes  int64
}

// Policy is some rules and a quota, for some callers.
type Policy struct {
	Name  string
	For   []string // "token:NAME", "cert:NAME", "anonymous", "*" (everybody), "label:KEY=VALUE" (access tokens with the label)
	Rules []Rule
	Quota Quota
}

// AccessToken is what the table knows of a secret with which a caller proves who he is. The
// secret itself is known to nobody but him.
type AccessToken struct {
	Accessor string   // its public name
	Hash     [32]byte // SHA-256 of the secret
	Name     string   // whoever has the secret is "token:NAME"; several may have the same
	Labels   []Label
	MadeBy   string
	MadeAt   int64   // wall clock, Unix milliseconds, for people only
	Deadline Instant // cluster time from which on it is no longer valid; 0: none
}

// PutAccessToken makes an access token valid, for its TTL if it has one. One whose accessor
// or hash is there already is [Invalid].
type PutAccessToken struct {
	Accessor string
	Hash     [32]byte
	Name     string
	Labels   []Label
	MadeBy   string
	MadeAt   int64
	TTL      int64 // nanoseconds; 0: for good
}

// RevokeAccessToken ends an access token. [NotHeld] if there is none.
type RevokeAccessToken struct {
	Accessor string
}

// ChangePolicies puts policies in, in place of those of the same names, and takes others
// out: all of it or nothing. [NotHeld] if one that is to be removed is not there.
type ChangePolicies struct {
	Put    []Policy
	Remove []string
	If     uint64 // only if [Table.RightsIndex] is still that, or [Invalid]; 0: always
}

// As runs a request for a caller whom a node knows, within what belongs to that caller:
// otherwise it is [NotOwner] and changes nothing. See as.go.
type As struct {
	Caller  string // an identity, "token:NAME" or "cert:NAME"; or the address of a caller who has none, or the node
	Force   bool   // he may also end, renew and change detached grants of others
	Command Command
}

func (PutAccessToken) kind() Kind    { return KindPutAccessToken }
func (RevokeAccessToken) kind() Kind { return KindRevokeAccessToken }
func (ChangePolicies) kind() Kind    { return KindChangePolicies }
func (As) kind() Kind                { return KindAs }
