package client

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// fill sets every field of a message, and of those in it, to a value of its own.
func fill(m protoreflect.Message, n *int64) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		*n++
		value := func(f protoreflect.FieldDescriptor) protoreflect.Value {
			switch f.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(string(f.Name()))
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(true)
			case protoreflect.Uint32Kind:
				return protoreflect.ValueOfUint32(uint32(*n))
			case protoreflect.Uint64Kind:
				return protoreflect.ValueOfUint64(uint64(*n))
			case protoreflect.Int64Kind:
				return protoreflect.ValueOfInt64(*n)
			}
			panic("no value for a field of kind " + f.Kind().String())
		}
		switch {
		case f.IsList():
			one := m.Mutable(f).List().AppendMutable().Message()
			fill(one, n)
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), n)
		default:
			m.Set(f, value(f))
		}
	}
}

// empty returns the names of the fields of v, and of those in it, that are zero.
func empty(path string, v reflect.Value) (names []string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			names = append(names, empty(path+"."+v.Type().Field(i).Name, v.Field(i))...)
		}
	case reflect.Slice:
		for i := range v.Len() {
			names = append(names, empty(path, v.Index(i))...)
		}
	}
	if v.IsZero() {
		names = append(names, path)
	}
	return names
}

func TestStatusAndMembersHaveAllFieldsOfTheAnswer(t *testing.T) {
	var n int64
	var status apiv1.StatusResponse
	fill(status.ProtoReflect(), &n)
	got := statusOf(&status)
	if missing := empty("Status", reflect.ValueOf(got)); missing != nil {
		t.Errorf("%q are empty: %+v", missing, got)
	}
	var members apiv1.MembersResponse
	fill(members.ProtoReflect(), &n)
	list := membersOf(&members)
	if missing := empty("Member", reflect.ValueOf(list)); missing != nil || len(list) != 1 {
		t.Errorf("%q are empty: %+v", missing, list)
	}
	// Fields could have got each other's values.
	for what, pair := range map[string][2]any{
		"Voters": {got.Voters, int(status.GetVoters())}, "VotersHealthy": {got.VotersHealthy, int(status.GetVotersHealthy())},
		"Locks": {got.Locks, int(status.GetLocks())}, "Grants": {got.Grants, int(status.GetGrants())},
		"Waiters": {got.Waiters, int(status.GetWaiters())}, "Sessions": {got.Sessions, int(status.GetSessions())},
		"Term": {got.Term, status.GetTerm()}, "CommitIndex": {got.CommitIndex, status.GetCommitIndex()},
		"AppliedIndex": {got.AppliedIndex, status.GetAppliedIndex()}, "VotesFrom": {got.VotesFrom, status.GetVotesFrom()},
		"LeaderID": {got.LeaderID, "leader_id"}, "LeaderAddress": {got.LeaderAddress, "leader_address"},
		"NotReadyReason": {got.NotReadyReason, "not_ready_reason"}, "VoterReason": {got.VoterReason, "voter_reason"},
		"RaftAddress": {list[0].RaftAddress, "raft_address"}, "APIAddress": {list[0].APIAddress, "api_address"},
		"HTTPAddress": {list[0].HTTPAddress, "http_address"}, "GossipAddress": {list[0].GossipAddress, "gossip_address"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", what, pair[0], pair[1])
		}
	}
	// A new field of the protocol must fail this test.
	const known = 38 // one of them, directory, is for the client itself: Members has it
	if fields := proto.Message(&status).ProtoReflect().Descriptor().Fields().Len(); fields != known {
		t.Errorf("a status has %d fields on the wire; statusOf knows %d: add the new ones to Status, or say here why not", fields, known)
	}
}
