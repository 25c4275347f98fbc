package fsm

import (
	"fmt"
	"strconv"
	"strings"
)

// reason says why a command was refused. State keeps the number, with its
// argument, and not the text: the text may change from version to version.
// Never renumbered or reused.
type reason uint8

const (
	noReason       reason = 0
	badID          reason = 1
	otherCommand   reason = 2
	badName        reason = 3
	lockTwice      reason = 4
	badMode        reason = 5
	permitsForeign reason = 6
	badPermits     reason = 7
	lockCount      reason = 8
	minTTL         reason = 9
	maxTTL         reason = 10
	badWait        reason = 11
	needsSession   reason = 12
	maxWait        reason = 13
	badHolder      reason = 14
	maxValue       reason = 15
	labelCount     reason = 16
	badLabel       reason = 17
	maxDelay       reason = 18
	badReason      reason = 19
	badWho         reason = 20
	badTarget      reason = 21
	noLimit        reason = 22
	badLimits      reason = 23
	noSessionID    reason = 24
	otherKind      reason = 25
	otherSize      reason = 26
	fullOnces      reason = 27
	fullSessions   reason = 28
	fullSession    reason = 29
	fullGrants     reason = 30
	fullWaiters    reason = 31
	fullQueue      reason = 32
	outOfTokens    reason = 33
	fullEnded      reason = 34
	fullTries      reason = 35
	grantEnded     reason = 36
	otherLocks     reason = 37
	otherTTL       reason = 38
	otherDelay     reason = 39
	otherValue     reason = 40
	badOwner       reason = 41
	fullBytes      reason = 42
	badVersion     reason = 43
	shrunk         reason = 44
	noSemaphore    reason = 45

	// Of level 2.
	badAccessor      reason = 46
	noHash           reason = 47
	badTokenName     reason = 48
	badMadeBy        reason = 49
	badTokenTTL      reason = 50
	tokenExists      reason = 51
	fullAccessTokens reason = 52
	fullRights       reason = 53
	noAccessToken    reason = 54
	otherRights      reason = 55
	badPolicyName    reason = 56
	subjectCount     reason = 57
	badSubject       reason = 58
	ruleCount        reason = 59
	badRights        reason = 60
	badRuleName      reason = 61
	adminName        reason = 62
	badQuota         reason = 63
	policySize       reason = 64
	fullPolicies     reason = 65
	noPolicy         reason = 66
	policyTwice      reason = 67
	badCaller        reason = 68
	otherOwner       reason = 69
	revokedCaller    reason = 70
	foreignSession   reason = 71
	foreignGrant     reason = 72
	foreignOnce      reason = 73
	quotaSessions    reason = 74
	quotaGrants      reason = 75
	quotaWaiters     reason = 76
	quotaBytes       reason = 77
	reasonsEnd       reason = 78
)

const (
	fieldLock         = "lock"
	fieldID           = "id"
	detailText        = "must be UTF-8 of at most %d bytes, without control characters"
	detailGrantsLimit = "the limit is %d grants and waiting requests"
	detailOther       = "must be as in the first request under this ID"
	detailQuota       = "the quota is %d%s, and the caller has %d"
	fieldPolicy       = "policy"
	fieldOwner        = "owner"
)

// refusalTexts gives each reason its field and, with the argument, its text.
var refusalTexts = [reasonsEnd]struct{ field, detail string }{
	badID:          {fieldID, "must have a session and a sequence from 1, or nothing; a once ID is for detached acquires only"},
	otherCommand:   {fieldID, "was used by another command"},
	badName:        {fieldLock, "must be UTF-8 of 1 to %d bytes, without control characters"},
	lockTwice:      {fieldLock, "lock %d of the request is named twice"},
	badMode:        {"mode", "must be exclusive, shared or permits"},
	permitsForeign: {"permits", "permits and limit are for mode permits only"},
	badPermits:     {"permits", "must be 1 up to the semaphore's limit"},
	lockCount:      {"locks", "must be 1 to %d locks"},
	minTTL:         {"ttl", "must be at least %s"},
	maxTTL:         {"ttl", "must be at most %s"},
	badWait:        {"wait", "must be 0, positive, or -1"},
	needsSession:   {fieldID, "an acquire must have a session and a sequence"},
	maxWait:        {"wait", "must be 0 to %s for a detached acquire"},
	badHolder:      {"holder", detailText},
	maxValue:       {"value", "must be at most %d bytes"},
	labelCount:     {"labels", "must be at most %d labels"},
	badLabel:       {"labels", "must be UTF-8 without control characters, key and value together at most %d bytes"},
	maxDelay:       {"delay", "must be 0 to %s"},
	badReason:      {"reason", detailText},
	badWho:         {"who", detailText},
	badOwner:       {"owner", detailText},
	fullBytes:      {"table_bytes", "the limit is %d bytes of memory"},
	badTarget:      {"target", "must be another request of the same session"},
	noLimit:        {"limit", "must be at least 1"},
	badLimits:      {"limits", ""}, // the argument is a place in limitTable
	noSessionID:    {"session", "must not be zero"},
	otherKind:      {fieldLock, "lock %d of the request is in use as another kind"},
	otherSize:      {fieldLock, "the semaphore is in use with limit %d"},
	fullOnces:      {"once_remembered", "the limit is %d request IDs, each remembered until some time after its grant has ended"},
	fullSessions:   {"sessions", "the limit is %d sessions"},
	fullSession:    {"grants_per_session", detailGrantsLimit},
	fullGrants:     {"grants", detailGrantsLimit},
	fullWaiters:    {"waiters", "the limit is %d waiting requests"},
	fullQueue:      {"waiters_per_lock", "the limit is %d waiting requests for one lock"},
	outOfTokens:    {"token", "all tokens below 2^53 are used"},
	fullEnded:      {"ended_remembered", "the limit is %d sessions that are open or ended lately"},
	fullTries:      {fieldID, "the limit is %d tries that wait under one ID"},
	grantEnded:     {fieldID, "its grant, with token %d, has ended: take a new ID to acquire again"},
	otherLocks:     {"locks", detailOther},
	otherTTL:       {"ttl", detailOther},
	otherDelay:     {"delay", detailOther},
	otherValue:     {"value", detailOther},
	badVersion:     {"version", detailText},
	shrunk:         {fieldLock, "lock %d of the request asks for %d permits, and the semaphore was made smaller meanwhile: it has %d"},
	noSemaphore:    {fieldLock, "is in use, and not as a semaphore: it has no size"},

	badAccessor:      {"accessor", "must be UTF-8 of 1 to %d bytes, without control characters"},
	noHash:           {"hash", "must be the SHA-256 of the secret"},
	badTokenName:     {"name", "must be UTF-8 of 1 to %d bytes, without control characters"},
	badMadeBy:        {"made_by", detailText},
	badTokenTTL:      {"ttl", "must be 0 to %s"},
	tokenExists:      {"accessor", "there is an access token with this accessor or this secret"},
	fullAccessTokens: {"access_tokens", "the limit is %d access tokens: revoke some, or change the limit"},
	fullRights:       {"table_bytes", "the limit is %d bytes of memory, %d are free, and access tokens and policies take %d: they get no more than is left for the others"},
	noAccessToken:    {"accessor", "there is no such access token: it has ended, was revoked or never made"},
	otherRights:      {"if", "access tokens or policies have changed meanwhile, in entry %d of the log: read them again"},
	badPolicyName:    {"name", "must be UTF-8 of 1 to %d bytes, without control characters"},
	subjectCount:     {"for", "must be 1 to %d callers"},
	badSubject:       {"for", "caller %d must be token:NAME, cert:NAME, anonymous, * or label:KEY=VALUE"},
	ruleCount:        {"rules", "must be at most %d rules"},
	badRights:        {"rules", "rule %d must give or deny some of the rights read, lock, force and admin"},
	badRuleName:      {"rules", "rule %d must have a prefix or a whole name as locks can have it"},
	adminName:        {"rules", "rule %d is for admin, which has no names: its prefix must be empty"},
	badQuota:         {"quota", "must be 0, for no bound, or positive and less than 2^31; bytes may be more"},
	policySize:       {"policy_bytes", "must be at most %d bytes"},
	fullPolicies:     {"policies", "the limit is %d policies: remove some, or change the limit"},
	noPolicy:         {fieldPolicy, "there is no such policy"},
	policyTwice:      {fieldPolicy, "must be named once"},
	badCaller:        {"caller", "must be UTF-8 of 1 to %d bytes, without control characters"},
	otherOwner:       {fieldOwner, "must be the caller"},
	revokedCaller:    {"caller", "no access token of its name is valid any more"},
	foreignSession:   {"session", "belongs to another identity"},
	foreignGrant:     {"token", "the grant belongs to another identity, and the caller has no right to force"},
	foreignOnce:      {fieldID, "belongs to another identity"},
	quotaSessions:    {"quota.sessions", detailQuota},
	quotaGrants:      {"quota.grants", detailQuota},
	quotaWaiters:     {"quota.waiters", detailQuota},
	quotaBytes:       {"quota.bytes", detailQuota},
}

// refusal is a reason with its argument.
type refusal struct {
	why reason
	arg int64

	own, free int64 // of a share that is used up: what the owner has, and what is free. Of shrunk: permits, and size

	policy string // that says so; only in the first answer
}

// refuse makes a result that changes nothing and says why. The reason stays in
// t.refused for remember.
func (t *Table) refuse(code Code, why reason, arg int64) Result {
	t.refused = refusal{why: why, arg: arg}
	r := Result{Code: code}
	t.refused.explain(&r)
	return r
}

// explain writes the texts of the reason into a result.
func (f refusal) explain(r *Result) {
	text := &refusalTexts[f.why]
	r.Field, r.Detail = text.field, text.detail
	switch {
	case f.why == badLimits:
		e := &limitTable[f.arg]
		r.Detail = fmt.Sprintf("%s must be %s to %d, 0 for the default", e.field, e.from(), e.max)
	case f.why == shrunk:
		r.Detail = fmt.Sprintf(text.detail, f.arg, f.own, f.free)
	case f.why == fullRights:
		r.Detail = fmt.Sprintf(text.detail, f.arg, f.free, f.own)
	case text.detail == detailQuota:
		r.Detail = fmt.Sprintf(text.detail, f.arg, f.byPolicy(), f.own)
	case strings.Contains(text.detail, "%s"): // a time
		r.Detail = fmt.Sprintf(text.detail, strconv.FormatFloat(float64(f.arg)/float64(nanosPerSecond), 'f', -1, 64)+"s")
	case strings.Contains(text.detail, "%d"):
		r.Detail = fmt.Sprintf(text.detail, f.arg)
	}
	if f.policy != "" && text.detail != detailQuota {
		r.Detail = fmt.Sprintf("policy %q: %s", f.policy, r.Detail)
	}
	if f.isShare() {
		r.Detail += fmt.Sprintf(", %d are free, and this client, by its identity or address, has %d: nobody gets more than is left for the others; "+
			"`locknode sessions ls` shows who has what, `locknode limits set %s=N` changes the limit", f.free, f.own, text.field)
	}
}

// byPolicy names the policy of a quota.
func (f refusal) byPolicy() string {
	if f.policy == "" {
		return ""
	}
	return fmt.Sprintf(" by policy %q", f.policy)
}

// isShare says that the refusal is of a limit that owners share.
func (f refusal) isShare() bool {
	switch f.why {
	case fullOnces, fullSessions, fullGrants, fullWaiters, fullQueue, fullEnded, fullBytes:
		return true
	}
	return false
}
