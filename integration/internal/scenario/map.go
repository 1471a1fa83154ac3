package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pointsmanhq/pointsman/integration/internal/load"
	"github.com/pointsmanhq/pointsman/integration/internal/stack"
	"github.com/pointsmanhq/pointsman/proto/directory"
)

// directoryKeys reads everything that the stack has in etcd, as an operator's etcdctl does.
func (w *world) directoryKeys() (map[string]string, error) {
	cl, err := clientv3.New(clientv3.Config{Endpoints: w.Etcd(), DialTimeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	ctx, cancel := w.within(10 * time.Second)
	defer cancel()
	resp, err := cl.Get(ctx, w.EtcdPrefix()+"/"+w.Topic()+"/", clientv3.WithPrefix())
	if err := errors.Join(err, cl.Close()); err != nil {
		return nil, fmt.Errorf("read etcd: %w", err)
	}
	out := make(map[string]string)
	for _, kv := range resp.Kvs {
		out[strings.TrimPrefix(string(kv.Key), w.EtcdPrefix()+"/"+w.Topic()+"/")] = string(kv.Value)
	}
	return out, nil
}

// owner is the node that etcd names for a partition.
func (w *world) owner(partition int32) (string, error) {
	all, err := w.directoryKeys()
	if err != nil {
		return "", err
	}
	var claim directory.Claim
	text, ok := all[fmt.Sprintf("claims/%d", partition)]
	if !ok {
		return "", fmt.Errorf("etcd holds no claim of partition %d", partition)
	}
	if err := json.Unmarshal([]byte(text), &claim); err != nil {
		return "", fmt.Errorf("claim of partition %d: %w", partition, err)
	}
	return claim.Node, nil
}

// where is what a router says about a key.
func (w *world) where(key string) (node string, err error) {
	status, body := w.get(w.Routers()[0].Admin + "/api/v1/where?key=" + key)
	if status != 200 {
		return "", fmt.Errorf("where %s: HTTP %d %s", key, status, body)
	}
	return nodeIn(body)
}

// FollowUpgrade follows one client by name: the node that serves it is the one that etcd names as owner of its
// partition, before and after the partition moves, on one socket.
func FollowUpgrade(t testing.TB) {
	w := begin(t, stack.Options{Nodes: 2})
	alice := w.client(0, load.Options{Key: "alice"})
	partition := w.partitionOf("alice")

	var served []string
	follow := func(previous string) string {
		t.Helper()
		var owner string
		w.eventually(30*time.Second, "the router serves alice from the owner that etcd names", func() error {
			var err error
			if owner, err = w.owner(partition); err != nil {
				return err
			}
			where, err := w.where("alice")
			if err != nil {
				return err
			}
			if where != owner || owner == previous {
				return fmt.Errorf("etcd names %s, the router %s, before it was %s", owner, where, previous)
			}
			return w.serves(owner, partition)
		})
		served = append(served, owner)
		return owner
	}
	first := follow("")
	w.put("alice", "1")
	all, err := w.directoryKeys()
	w.must(err)
	for _, key := range []string{"topic", "nodes/" + first, fmt.Sprintf("claims/%d", partition)} {
		if all[key] == "" {
			t.Errorf("etcd has no %s", key)
		} else {
			t.Logf("%s/%s/%s %s", w.EtcdPrefix(), w.Topic(), key, all[key])
		}
	}
	w.must(w.DrainNode(w.ctx, first))
	second := follow(first)
	w.put("alice", "2")
	_, err = w.AddNode(w.ctx)
	w.must(err)
	w.must(w.KillNode(w.ctx, second))
	follow(second)
	w.put("alice", "3")
	w.finish()
	t.Logf("alice, partition %d, was served by %s on one socket", partition, strings.Join(served, ", then "))
	if n := len(alice.History().Sessions); n != 1 {
		t.Errorf("%d sockets, want 1", n)
	}
}

// EtcdOutage: without etcd nothing changes for clients, also for new ones and when a node dies; when it is back, a
// new node is found.
func EtcdOutage(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2, Nodes: 3})
	names := keys("client", 60)
	w.connect(names, load.Options{})
	w.produce(names, 300, 128)
	w.must(w.settled(30 * time.Second))
	length := size(w, 4*time.Second, 15*time.Second)
	outage := w.fault("etcd down", func() error {
		if err := w.StopEtcd(w.ctx); err != nil {
			return err
		}
		w.at(time.Now(), length)
		return nil
	})
	late := keys("late", 10)
	w.connect(late, load.Options{})
	w.produce(late, 50, 128)
	w.fault("kill while etcd is down", func() error { return w.KillNode(w.ctx, w.Nodes()[0].ID) })
	w.fault("etcd back", func() error { return w.StartEtcd(w.ctx) })
	w.fault("join after the outage", func() error { _, err := w.AddNode(w.ctx); return err })
	r := w.finish()
	if longest := r.Faults[0].Max; longest > size(w, 2*time.Second, time.Second) {
		t.Errorf("longest pause in the outage of %s: %s, want none", outage.Until.Sub(outage.From).Round(time.Second), longest)
	}
}

// EtcdWiped: its data is lost; nodes publish everything again and clients feel nothing.
func EtcdWiped(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2})
	names := keys("client", 60)
	w.connect(names, load.Options{})
	w.produce(names, 300, 128)
	w.must(w.settled(30 * time.Second))
	before, err := w.directoryKeys()
	w.must(err)
	w.fault("etcd wiped", func() error {
		if err := w.WipeEtcd(w.ctx); err != nil {
			return err
		}
		w.eventually(60*time.Second, "everything is published again", func() error {
			after, err := w.directoryKeys()
			if err != nil {
				return err
			}
			for k := range before {
				if _, ok := after[k]; !ok {
					return fmt.Errorf("etcd has no %s", k)
				}
			}
			return nil
		})
		return nil
	})
	w.fault("join after the wipe", func() error { _, err := w.AddNode(w.ctx); return err })
	w.fault("drain after the wipe", func() error { return w.DrainNode(w.ctx, w.Nodes()[0].ID) })
	w.finish()
}

// KafkaRestart: a broker restart is a pause, not a loss.
func KafkaRestart(t testing.TB) {
	w := begin(t, stack.Options{Routers: 2})
	names := keys("client", size(w, 50, 200))
	w.connect(names, load.Options{})
	w.produce(names, 300, 128)
	w.must(w.settled(30 * time.Second))
	w.fault("Kafka restarted", func() error {
		if err := w.StopKafka(w.ctx); err != nil {
			return err
		}
		return w.StartKafka(w.ctx)
	})
	if len(w.faults) == 0 {
		t.Skipf("a stack of kind %s cannot restart its Kafka", w.Kind())
	}
	w.fault("join after the restart", func() error { _, err := w.AddNode(w.ctx); return err })
	w.finish()
}
