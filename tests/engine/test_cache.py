"""What the cache of documents keeps: a bounded number and size, and what others use whatever one caller sends."""

from hypothesis import given
from hypothesis import strategies as st

from graphql_api.engine.cache import SharedCache

PUTS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 60), st.sampled_from([None, "", "u1", "u2"])))


@given(PUTS)
def test_what_is_kept_is_bounded_for_all_and_for_each_owner(puts):
    cache, sizes = SharedCache(5, 100, share=2), {}
    for source, size, owner in puts:
        if cache.get(source) is None:
            cache.put(source, source.upper(), size, owner)
            sizes[source] = size, owner
        kept = {each: sizes[each] for each in "abcdefgh" if cache.get(each)}
        assert all(cache.get(each) == each.upper() for each in kept)
        assert len(kept) <= 5
        assert sum(size for size, _ in kept.values()) <= 100
        for of in ("", "u1", "u2"):
            owned = [size for size, owner in kept.values() if owner == of]
            assert len(owned) <= 2
            assert sum(owned) <= 50


@given(st.lists(st.integers(1, 200), max_size=50))
def test_one_owner_pushes_out_nothing_of_others(sizes):
    cache = SharedCache(16, 1600)
    for number in range(14):
        cache.put(f"honest {number}", "honest", 100, f"user {number // 2}" if number % 2 else None)
    for number, size in enumerate(sizes):
        cache.put(f"hostile {number}", "hostile", size, "one")
        cache.get(f"hostile {number}")
    assert all(cache.get(f"honest {number}") for number in range(14))


def test_the_least_recently_used_goes_first():
    cache = SharedCache(2, 100)
    cache.put("a", 1, 10)
    cache.put("b", 2, 10)
    cache.get("a")
    cache.put("c", 3, 10)
    assert [cache.get(source) for source in "abc"] == [1, None, 3]
