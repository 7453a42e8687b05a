"""What a daemon says of itself, in an attribute or beside it."""

from unionfs.fuse.rootattributes import Status, document


def test_a_status_of_any_length_is_told():
    for names in ([], ["x" * 100] * 1000, ["short"], ["y" * 4000] * 500):
        status = Status({"layers": names})
        for _ in range(2):
            attribute = status.attribute()
            assert len(attribute) <= 65536
            assert document(attribute) == {"layers": names}


def test_a_status_that_gets_shorter_has_nothing_of_the_longer_one():
    status = Status({"layers": ["x" * 200000]})
    status.attribute()
    status.document["layers"] = ["y" * 100000]
    assert document(status.attribute()) == {"layers": ["y" * 100000]}
