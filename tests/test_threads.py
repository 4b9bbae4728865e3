"""The number of threads is lowered for small work only, and put back."""

import pytest
import torch

from fewshot.threads import SMALL, one_thread, threads_for


@pytest.fixture(autouse=True)
def restore():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_small_work_runs_on_one_thread():
    torch.set_num_threads(3)
    with threads_for(1000, 100):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_large_work_keeps_the_threads():
    torch.set_num_threads(2)
    with threads_for(10_000_000, int(SMALL)):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2


def test_the_border_is_at_small():
    torch.set_num_threads(2)
    with threads_for(1, int(SMALL / 6) - 1):
        assert torch.get_num_threads() == 1
    with threads_for(1, int(SMALL / 6) + 1):
        assert torch.get_num_threads() == 2


def test_an_error_puts_the_threads_back():
    torch.set_num_threads(2)
    with pytest.raises(KeyError), threads_for(1, 1):
        raise KeyError
    assert torch.get_num_threads() == 2


def test_one_thread_everywhere_and_back_again():
    from threadpoolctl import threadpool_info

    torch.set_num_threads(2)
    before = [pool["num_threads"] for pool in threadpool_info()]
    with one_thread():
        assert torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert torch.get_num_threads() == 2
    assert [pool["num_threads"] for pool in threadpool_info()] == before
