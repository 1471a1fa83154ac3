package client

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/proto/clientmsg"
)

// TestKeysOfRandomLivesEndUpAsWished lets a program wish at random while connections break at random, against a model of a
// router, which no request may surprise: whatever happened, in the end the router follows what the program wishes.
func TestKeysOfRandomLivesEndUpAsWished(t *testing.T) {
	for seed := range uint64(2000) {
		if !t.Run("", func(t *testing.T) { randomLife(t, seed) }) {
			t.Fatalf("seed %d", seed)
		}
	}
}

func randomLife(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // a seed tells the life again
	name := func() []byte { return fmt.Append(nil, "k", rng.IntN(4)) }
	k := newKeys(Config{Keys: [][]byte{[]byte("k0"), []byte("k1")}})
	wishes := map[string]bool{"k0": true, "k1": true} // of the program
	var follows map[string]bool                       // of the router
	var requests []clientmsg.Control                  // on their way to it
	var answers []clientmsg.Message                   // on their way back
	at := time.Unix(0, 0)
	connect := func() {
		q := url.Values{}
		resumes := k.connect(q)
		follows, requests, answers = map[string]bool{}, nil, nil
		if resumes && len(q["key"]) == 0 {
			t.Fatal("a cursor and no key")
		}
		for _, key := range q["key"] {
			if !wishes[key] {
				t.Fatalf("the address names %s", key)
			}
			follows[key] = true
			answers = append(answers, clientmsg.Message{Type: clientmsg.TypeSubscribed, Key: []byte(key)})
		}
	}
	send := func() bool {
		msg, wait := k.next(at)
		if msg == nil {
			at = at.Add(max(wait, 0))
			return wait >= 0
		}
		m, err := clientmsg.ParseControl(msg)
		if err != nil {
			t.Fatal(err)
		}
		requests = append(requests, m)
		return true
	}
	serve := func() bool {
		if len(requests) == 0 {
			return false
		}
		m := requests[0]
		requests = requests[1:]
		key := string(m.Key)
		if follows[key] == (m.Type == clientmsg.TypeSubscribe) {
			t.Fatalf("%s of %s, which is followed: %v", m.Type, key, follows[key])
		}
		answer := clientmsg.Message{Type: clientmsg.TypeUnsubscribed, Key: m.Key}
		if m.Type == clientmsg.TypeSubscribe {
			answer.Type = clientmsg.TypeSubscribed
			switch rng.IntN(8) {
			case 0:
				answer = clientmsg.Message{Type: clientmsg.TypeRefused, Of: m.Type, Key: m.Key, Reason: clientmsg.RefusedUnavailable}
			case 1:
				answer = clientmsg.Message{Type: clientmsg.TypeRefused, Of: m.Type, Key: m.Key, Reason: clientmsg.RefusedForbidden}
			}
		}
		if answer.Type != clientmsg.TypeRefused {
			follows[key] = m.Type == clientmsg.TypeSubscribe
		}
		answers = append(answers, answer)
		return true
	}
	hear := func() bool {
		if len(answers) == 0 {
			return false
		}
		m := answers[0]
		answers = answers[1:]
		w := k.find(m.Key)
		latest := w != nil && w.begin != nil && w.begin == w.sent
		k.hear(&m, func(int) time.Time { return at.Add(time.Second) })
		if m.Reason == clientmsg.RefusedForbidden && latest {
			delete(wishes, string(m.Key))
		}
		return true
	}
	connect()
	for range 60 {
		switch rng.IntN(8) {
		case 0, 1:
			key := name()
			wishes[string(key)] = true
			k.subscribe(key, Start{})
		case 2:
			key := name()
			delete(wishes, string(key))
			k.unsubscribe(key)
		case 3, 4:
			send()
		case 5:
			serve()
		case 6:
			hear()
		case 7:
			if rng.IntN(4) == 0 {
				connect()
			}
		}
	}
	for send() || serve() || hear() {
	}
	for i := range 4 {
		key := fmt.Sprint("k", i)
		if follows[key] != wishes[key] {
			t.Errorf("%s: followed %v, wished %v", key, follows[key], wishes[key])
		}
	}
	if len(k.all) != len(wishes) {
		t.Errorf("%d keys are remembered, %d wished", len(k.all), len(wishes))
	}
}
