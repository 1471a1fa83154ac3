package feed

import "slices"

// Listener is a Subscriber on this machine.
type Listener interface {
	Subscriber
	// Record takes a frame that was made for the key; Flush sends what was taken.
	Record(frame []byte, offset int64) (taken bool)
	Flush()
	Hash() uint64
}

// Local fans records out to sockets of this process. It belongs to one Log's goroutine.
type Local struct {
	// Frame encodes a record for all listeners of its key; it may keep and reuse what it returns as grown.
	Frame func(buf []byte, hash uint64, r *Record) (frame, grown []byte)
	// Delivered hears how many records went out; may be nil.
	Delivered func(n int)

	byKey   map[string][]Listener
	buf     []byte
	touched []Listener
}

// Add makes a listener receive the records of its key.
func (f *Local) Add(s Subscriber) {
	l, ok := s.(Listener)
	if !ok || l.Gone() {
		return
	}
	if f.byKey == nil {
		f.byKey = make(map[string][]Listener)
	}
	f.byKey[string(l.Key())] = append(f.byKey[string(l.Key())], l)
}

// Remove ends that.
func (f *Local) Remove(l Listener) {
	key := string(l.Key())
	list := f.byKey[key]
	for i, other := range list {
		if other != l {
			continue
		}
		if len(list) == 1 {
			delete(f.byKey, key)
			return
		}
		f.byKey[key] = slices.Delete(list, i, i+1)
		return
	}
}

// Listeners lists all.
func (f *Local) Listeners() []Listener {
	var out []Listener
	for _, list := range f.byKey {
		out = append(out, list...)
	}
	return out
}

// Fan writes a batch to whom it is for: each socket once.
func (f *Local) Fan(batch []*Record) {
	n := 0
	f.touched = f.touched[:0]
	for _, r := range batch {
		list := f.byKey[string(r.Key)]
		if len(list) == 0 {
			continue
		}
		var frame []byte
		frame, f.buf = f.Frame(f.buf, list[0].Hash(), r)
		for _, l := range list {
			if l.Record(frame, r.Offset) {
				n++
				f.touched = append(f.touched, l)
			}
		}
	}
	for _, l := range f.touched {
		l.Flush()
	}
	if f.Delivered != nil && n > 0 {
		f.Delivered(n)
	}
}
