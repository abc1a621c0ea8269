package leasemodel

import (
	"encoding/binary"
	"hash/maphash"
	"reflect"
	"slices"
	"time"

	"github.com/tokenledger/tokenledger/events"
	"github.com/tokenledger/tokenledger/ledger/barrier"
	"github.com/tokenledger/tokenledger/verifier/lease"
)

// There are few states of machines and many worlds. So each state of a machine
// is stored once and never changed, and its transitions are cached.

// node is a verifier's machine.
type node struct {
	m   *lease.Machine
	sum uint64 // hash of the state
	// Of the last renewal sent.
	number  int8
	joining bool
}

// base is a ledger's machine.
type base struct {
	m   *barrier.Machine
	sum uint64
}

// wait is a ledger's wait.
type wait struct {
	m   *barrier.Wait
	sum uint64
}

// act is an input of a machine.
type act struct {
	verb        verb
	a, b        int8
	who, number int8
	joining     bool
	now         int8
	ended       [instances]int8 // of a barrier
}

type verb int8

const (
	vSend    verb = iota // now
	vFailed              // a: number
	vAcked               // a: number, b: sequence
	vRead                // a: sequence of a message that is no barrier
	vBarrier             // a: sequence, b: floor
	vLost
	vApplied // a: position
	vGiveUp

	lBegin       // a: sequence, b: 1 if everything is read
	lLost        //
	lRenewal     // a: sequence, b: position, who, number, joining
	lGivenUp     // the same
	lBarrier     // a: sequence, b: floor
	lReadNothing // a: sequence
	lReport      // a: instance, b: position
	lApplied     // a: position
	lKnown       // a: sequence, b: floor
)

type told struct {
	sum uint64
	act act
}

type asked struct {
	m, w uint64
	now  int8
}

// looked is the result of checking whether a wait has ended.
type looked struct {
	w    *wait
	over bool
}

// stepper computes the next states. It is not safe for concurrent use.
type stepper struct {
	l    *limits
	emit func(step, *world) // must not retain the world
	next world              // given to emit

	nodes map[told]*node
	bases map[told]*base
	waits map[asked]*wait
	looks map[asked]looked
}

func newStepper(l *limits) *stepper {
	return &stepper{l: l, nodes: map[told]*node{}, bases: map[told]*base{}, waits: map[asked]*wait{}, looks: map[asked]looked{}}
}

// tell returns the next state of a verifier's machine. A nil machine is a new
// one.
func (s *stepper) tell(to *node, a act) *node {
	key := told{act: a}
	if to != nil {
		key.sum = to.sum
	}
	if n, ok := s.nodes[key]; ok {
		return n
	}
	n := new(node)
	if to == nil {
		n.m = lease.NewMachine(leaseFor)
	} else {
		n.m = to.m.Clone()
	}
	at := events.LeaseSeq(a.a)
	switch a.verb {
	case vSend:
		number, joining := n.m.Send(time.Duration(a.now) * tick)
		n.number, n.joining = int8(number), joining
	case vFailed:
		n.m.Failed(uint64(a.a))
	case vAcked:
		n.m.Acked(uint64(a.a), events.LeaseSeq(a.b))
	case vRead, vBarrier:
		var b *events.Barrier
		if a.verb == vBarrier {
			b = &events.Barrier{Floor: events.Position(a.b), Lease: events.InMilliseconds(leaseFor)}
		}
		if !n.m.Read(at, b) {
			panic("a message out of turn")
		}
	case vLost:
		n.m.Lost()
	case vApplied:
		n.m.Applied(events.Position(a.a))
	case vGiveUp:
		n.m.Release()
	default:
		panic("not a verifier's")
	}
	n.sum = sum(n.m)
	s.nodes[key] = n
	return n
}

// tellLedger does the same for a ledger's machine.
func (s *stepper) tellLedger(to *base, a act) *base {
	key := told{act: a}
	if to != nil {
		key.sum = to.sum
	}
	if n, ok := s.bases[key]; ok {
		return n
	}
	n := new(base)
	if to == nil {
		n.m = barrier.NewMachine(leaseFor)
		if s.l.Told > 0 {
			n.m.SetMaxPerName(s.l.Told)
		}
	} else {
		n.m = to.m.Clone()
	}
	at, now := events.LeaseSeq(a.a), time.Duration(a.now)*tick
	switch a.verb {
	case lBegin:
		n.m.Begin(at, a.b == 1, now)
	case lLost:
		n.m.Lost()
	case lRenewal, lGivenUp, lBarrier, lReadNothing:
		var r *events.Renewal
		var b *events.Barrier
		switch a.verb {
		case lBarrier:
			b = &events.Barrier{Floor: events.Position(a.b), Lease: events.InMilliseconds(leaseFor)}
			for i, number := range a.ended {
				if number > 0 {
					b.Ended = append(b.Ended, events.EndedLease{Holder: holder(int8(i)), Number: uint64(number)})
				}
			}
		case lRenewal, lGivenUp:
			r = &events.Renewal{Holder: holder(a.who), Number: uint64(a.number), Joining: a.joining, Index: events.Statement{Position: events.Position(a.b)}}
			if a.verb == lRenewal {
				r.Lease = events.InMilliseconds(leaseFor)
			}
		}
		if s.l.Broken == leaveOut && r != nil && int(a.who) >= s.l.Told {
			r = nil
		}
		if !n.m.Read(at, r, b, now) {
			panic("a message out of turn")
		}
	case lReport:
		n.m.Report(holder(a.a), events.Position(a.b))
	case lApplied:
		n.m.Applied(events.Position(a.a), now)
	case lKnown:
		n.m.Known(at, events.Position(a.b), now)
	default:
		panic("not a ledger's")
	}
	n.sum = sum(n.m)
	s.bases[key] = n
	return n
}

// ask starts a wait.
func (s *stepper) ask(to *base, now int8) (*base, *wait) {
	key := asked{m: to.sum, now: now}
	machine := told{to.sum, act{verb: -1, now: now}}
	if w, ok := s.waits[key]; ok {
		return s.bases[machine], w
	}
	n := &base{m: to.m.Clone()}
	w := &wait{m: n.m.Ask(revoked, time.Duration(now)*tick)}
	n.sum, w.sum = sum(n.m), sum(w.m)
	s.bases[machine], s.waits[key] = n, w
	return n, w
}

// look checks whether a wait has ended.
func (s *stepper) look(at *base, of *wait, now int8, early bool) looked {
	key := asked{at.sum, of.sum, now}
	if l, ok := s.looks[key]; ok {
		return l
	}
	w := &wait{m: of.m.Clone()}
	clock := time.Duration(now) * tick
	if early {
		clock += barrier.Margin(leaseFor)
	}
	over, _ := at.m.Done(w.m, clock)
	w.sum = sum(w.m)
	l := looked{w, over}
	s.looks[key] = l
	return l
}

var seed = maphash.MakeSeed()

// sum hashes the state of a machine.
func sum(machine any) uint64 {
	return maphash.Bytes(seed, encode(nil, reflect.ValueOf(machine)))
}

// encode appends a value with its unexported fields.
func encode(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		return append(b, bit(v.Bool()))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint())
	case reflect.String:
		return append(binary.AppendUvarint(b, uint64(v.Len())), v.String()...)
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0)
		}
		return encode(append(b, 1), v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			b = encode(b, v.Field(i))
		}
		return b
	case reflect.Slice:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		for i := range v.Len() {
			b = encode(b, v.Index(i))
		}
		return b
	case reflect.Map:
		var entries []string
		for it := v.MapRange(); it.Next(); {
			entries = append(entries, string(encode(encode(nil, it.Key()), it.Value())))
		}
		slices.Sort(entries)
		b = binary.AppendUvarint(b, uint64(len(entries)))
		for _, e := range entries {
			b = append(b, e...)
		}
		return b
	}
	panic("cannot tell apart two values of kind " + v.Kind().String())
}
