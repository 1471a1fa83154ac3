package link_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/pointsmanhq/pointsman/proto/link"
	"github.com/pointsmanhq/pointsman/proto/link/linkpb"
)

// generated turns a frame into what the generated code calls it.
func generated(f any) *linkpb.Frame {
	switch f := f.(type) {
	case *link.Hello:
		return &linkpb.Frame{Body: &linkpb.Frame_Hello{Hello: &linkpb.Hello{Router: f.Router, Version: f.Version, Token: []byte(f.Token), Build: f.Build}}}
	case *link.Attach:
		out := &linkpb.Attach{Stream: f.Stream, Partition: f.Partition, Key: f.Key, TopicId: topicID(f.TopicID), Epoch: f.Epoch, Credit: f.Credit}
		if f.Start != (link.Start{}) {
			out.Start = &linkpb.Start{Kind: linkpb.StartKind(f.Start.Kind), Value: f.Start.Value}
		}
		return &linkpb.Frame{Body: &linkpb.Frame_Attach{Attach: out}}
	case *link.Credit:
		return &linkpb.Frame{Body: &linkpb.Frame_Credit{Credit: &linkpb.Credit{Stream: f.Stream, Bytes: f.Bytes}}}
	case *link.Detach:
		return &linkpb.Frame{Body: &linkpb.Frame_Detach{Detach: &linkpb.Detach{Stream: f.Stream}}}
	case *link.Welcome:
		return &linkpb.Frame{Body: &linkpb.Frame_Welcome{Welcome: &linkpb.Welcome{Node: f.Node, Instance: f.Instance, Topic: f.Topic,
			TopicId: topicID(f.TopicID), Partitions: f.Partitions, Version: f.Version, Build: f.Build}}}
	case *link.Attached:
		return &linkpb.Frame{Body: &linkpb.Frame_Attached{Attached: &linkpb.Attached{Stream: f.Stream, Next: f.Next, Head: f.Head,
			Gap: linkpb.GapReason(f.Gap), Live: f.Live}}}
	case *link.Record:
		out := &linkpb.Record{Streams: f.Streams, Partition: f.Partition, Offset: f.Offset, Timestamp: f.Timestamp, Key: f.Key}
		for _, h := range f.Headers {
			out.Headers = append(out.Headers, &linkpb.Header{Key: h.Key, Value: h.Value})
		}
		if !f.Tombstone {
			out.Value = f.Value
		}
		return &linkpb.Frame{Body: &linkpb.Frame_Record{Record: out}}
	case *link.Checkpoint:
		return &linkpb.Frame{Body: &linkpb.Frame_Checkpoint{Checkpoint: &linkpb.Checkpoint{Partition: f.Partition, Next: f.Next, Except: f.Except, Only: f.Only}}}
	case *link.Gap:
		return &linkpb.Frame{Body: &linkpb.Frame_Gap{Gap: &linkpb.Gap{Stream: f.Stream, From: f.From, To: f.To, Reason: linkpb.GapReason(f.Reason)}}}
	case *link.Closed:
		return &linkpb.Frame{Body: &linkpb.Frame_Closed{Closed: &linkpb.Closed{Stream: f.Stream, Reason: linkpb.ClosedReason(f.Reason), Detail: f.Detail}}}
	case *link.Draining:
		return &linkpb.Frame{Body: &linkpb.Frame_Draining{Draining: &linkpb.Draining{}}}
	}
	panic(fmt.Sprintf("no frame: %T", f))
}

func topicID(id [16]byte) []byte {
	if id == ([16]byte{}) {
		return nil
	}
	return id[:]
}

func TestCodecAndGeneratedCodeWriteTheSameBytes(t *testing.T) {
	for seed := range uint64(1000) {
		for _, f := range newRandom(seed).eachFrame() {
			want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&linkpb.Batch{Frames: []*linkpb.Frame{generated(f)}})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got := appendFrame(nil, f)
			if !bytes.Equal(got, want) {
				t.Fatalf("seed %d, %#v:\n got %x\nwant %x", seed, f, got, want)
			}
		}
	}
}

func TestGeneratedCodeReadsWhatTheCodecWrites(t *testing.T) {
	for seed := range uint64(200) {
		var msg []byte
		want := &linkpb.Batch{}
		for _, f := range newRandom(seed).eachFrame() {
			msg = appendFrame(msg, f)
			want.Frames = append(want.Frames, generated(f))
		}
		got := &linkpb.Batch{}
		if err := proto.Unmarshal(msg, got); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !proto.Equal(got, want) {
			t.Fatalf("seed %d:\n got %v\nwant %v", seed, got, want)
		}
	}
}

func TestCodecReadsWhatGeneratedCodeWrites(t *testing.T) {
	for seed := range uint64(200) {
		r := newRandom(seed)
		for _, node := range []bool{true, false} {
			var want []any
			batch := &linkpb.Batch{}
			for range 3 {
				for _, f := range r.eachFrame() {
					if toNode(f) == node {
						want = append(want, f)
						batch.Frames = append(batch.Frames, generated(f))
					}
				}
			}
			msg, err := proto.Marshal(batch)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got, err := decode(msg, node)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			check(t, got, want)
		}
	}
}

// Protobuf allows fields in any order, lists packed or not, and fields of a newer schema anywhere.
func TestCodecReadsForeignOrderAndIgnoresUnknownFields(t *testing.T) {
	for seed := range uint64(200) {
		r := newRandom(seed)
		for _, f := range r.eachFrame() {
			msg := r.foreign(appendFrame(nil, f), 0)
			got, err := decode(msg, toNode(f))
			if err != nil {
				t.Fatalf("seed %d, %#v: %v", seed, f, err)
			}
			check(t, got, []any{f})
			// The generated code is the judge of whether that was legal.
			batch := &linkpb.Batch{}
			if err := proto.Unmarshal(msg, batch); err != nil {
				t.Fatalf("seed %d, %#v: %v", seed, f, err)
			}
			if len(batch.Frames) != 1 || batch.Frames[0].Body == nil {
				t.Fatalf("seed %d, %#v: generated code read %v", seed, f, batch)
			}
		}
	}
}

// foreign spells an encoded message in another legal way. Depth 0 is the batch, 1 the frame, 2 the body.
func (r random) foreign(msg []byte, depth int) []byte {
	type raw struct {
		num  protowire.Number
		data []byte
	}
	var all []raw
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		m := protowire.ConsumeFieldValue(num, typ, msg[n:])
		value := msg[n : n+m]
		msg = msg[n+m:]
		tag := protowire.AppendTag(nil, num, typ)
		if depth < 2 {
			inner, _ := protowire.ConsumeBytes(value)
			value = protowire.AppendBytes(nil, r.foreign(inner, depth+1))
		}
		all = append(all, raw{num, append(tag, value...)})
	}
	// Any order, but what has one number keeps its order: a stable sort by a random rank per number.
	rank := map[protowire.Number]int{}
	for _, f := range all {
		rank[f.num] = r.Int()
	}
	slices.SortStableFunc(all, func(a, b raw) int { return rank[a.num] - rank[b.num] })
	var out []byte
	for _, f := range all {
		out = append(r.unknown(out), f.data...)
	}
	return r.unknown(out)
}

// unknown appends fields that no version has named, of every wire type.
func (r random) unknown(dst []byte) []byte {
	for range r.IntN(3) {
		num := protowire.Number(1000 + r.IntN(1000))
		switch r.IntN(5) {
		case 0:
			dst = protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), r.Uint64())
		case 1:
			dst = protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), r.bytes())
		case 2:
			dst = protowire.AppendFixed32(protowire.AppendTag(dst, num, protowire.Fixed32Type), r.Uint32())
		case 3:
			dst = protowire.AppendFixed64(protowire.AppendTag(dst, num, protowire.Fixed64Type), r.Uint64())
		case 4:
			dst = protowire.AppendGroup(protowire.AppendTag(dst, num, protowire.StartGroupType), num, protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7))
		}
	}
	return dst
}

func TestListsMayBeUnpacked(t *testing.T) {
	var body []byte
	body = protowire.AppendVarint(protowire.AppendTag(body, 1, protowire.VarintType), 7)
	body = protowire.AppendBytes(protowire.AppendTag(body, 1, protowire.BytesType), []byte{8, 9})
	body = protowire.AppendVarint(protowire.AppendTag(body, 1, protowire.VarintType), 10)
	got, err := decode(frame(7, body), false)
	if err != nil {
		t.Fatal(err)
	}
	if s := got[0].(*link.Record).Streams; !slices.Equal(s, []uint64{7, 8, 9, 10}) {
		t.Fatalf("streams %v", s)
	}
}

// frame makes a message of one frame with any number and body.
func frame(num protowire.Number, body []byte) []byte {
	inner := protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), body)
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), inner)
}

func TestTextThatIsNotUTF8IsReplaced(t *testing.T) {
	msg := link.AppendClosed(nil, &link.Closed{Stream: 1, Reason: link.ClosedError, Detail: "a\xffb"})
	if err := proto.Unmarshal(msg, &linkpb.Batch{}); err != nil {
		t.Fatalf("generated code refuses it: %v", err)
	}
	got, err := decode(msg, false)
	if err != nil {
		t.Fatal(err)
	}
	if d := got[0].(*link.Closed).Detail; d != "a\ufffdb" {
		t.Fatalf("detail %q", d)
	}
}
