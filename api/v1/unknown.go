package apiv1

// UnknownBytes returns how many bytes of the request in x are fields that this
// version does not know. They travel along wherever the request is sent, so
// whoever bounds its size must count them. Each message's own reflection would
// tell as well, but takes as long as everything else that is done with an
// operation on its way.
func (x *Operation) UnknownBytes() int {
	switch r := x.GetRequest().(type) {
	case *Operation_OpenSession:
		if m := r.OpenSession; m != nil {
			return len(m.unknownFields) + unknownInLabels(m.Labels)
		}
	case *Operation_KeepAlive:
		if m := r.KeepAlive; m != nil {
			return len(m.unknownFields)
		}
	case *Operation_EndSession:
		if m := r.EndSession; m != nil {
			return len(m.unknownFields)
		}
	case *Operation_Acquire:
		return r.Acquire.unknownBytes()
	case *Operation_Cancel:
		if m := r.Cancel; m != nil {
			return len(m.unknownFields) + m.Id.unknownBytes() + m.Target.unknownBytes()
		}
	case *Operation_Release:
		if m := r.Release; m != nil {
			return len(m.unknownFields) + m.Id.unknownBytes()
		}
	case *Operation_Renew:
		if m := r.Renew; m != nil {
			return len(m.unknownFields) + m.Id.unknownBytes()
		}
	case *Operation_SetValue:
		if m := r.SetValue; m != nil {
			return len(m.unknownFields) + m.Id.unknownBytes()
		}
	case *Operation_ForceRelease:
		if m := r.ForceRelease; m != nil {
			return len(m.unknownFields) + m.Id.unknownBytes()
		}
	case *Operation_Get:
		if m := r.Get; m != nil {
			return len(m.unknownFields)
		}
	case *Operation_List:
		if m := r.List; m != nil {
			return len(m.unknownFields)
		}
	}
	return 0
}

func (x *AcquireRequest) unknownBytes() int {
	if x == nil {
		return 0
	}
	n := len(x.unknownFields) + x.Id.unknownBytes() + unknownInLabels(x.Labels)
	for _, w := range x.Locks {
		if w != nil {
			n += len(w.unknownFields)
		}
	}
	return n
}

func (x *RequestID) unknownBytes() int {
	if x == nil {
		return 0
	}
	n := len(x.unknownFields)
	for _, s := range x.Answered {
		if s != nil {
			n += len(s.unknownFields)
		}
	}
	return n
}

func unknownInLabels(labels []*Label) (n int) {
	for _, l := range labels {
		if l != nil {
			n += len(l.unknownFields)
		}
	}
	return n
}
